"""How many tokens change with the encoder's precision, and how fast each precision is.

    python -m benchmarks precision --json FILE

Computes the same real chains with the default model in float32 and in each other precision that the device supports, in
one run.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks._common import write
from foldmint_maintenance.datasets.records import read_parquet
from foldmint_tokenizer import ModelError
from foldmint_tokenizer.engine import Engine, Precision, Quantized
from foldmint_tokenizer.neighborhoods import Neighborhoods, build_geometry, concatenate
from foldmint_tokenizer.store.model_store import load_model

CHAINS = Path(__file__).resolve().parent.parent.parent / "tests" / "data" / "chains.parquet"


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    model: Annotated[Path | None, typer.Option(help="A model's store; the embedded model by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cuda" if torch.cuda.is_available() else "cpu",
    residues: Annotated[int, typer.Option(help="Maximum number of residues.")] = 20_000,
    repeats: Annotated[int, typer.Option(help="Of each precision, in turn; the median counts.")] = 3,
) -> None:
    """Print a table."""
    loaded = load_model(model)
    rows = taken(residues)
    embeddings = loaded.codebook.codebook.embeddings.to(device)
    engines: dict[str, Engine] = {}
    for precision in Precision:
        try:
            engines[precision.value] = Engine(loaded.encoder, device, precision=precision)
        except ModelError as error:
            print(f"left out: {error}")
    times: dict[str, list[float]] = {name: [] for name in engines}
    found: dict[str, Quantized] = {}
    for _ in range(repeats):
        for name, engine in engines.items():
            began = time.perf_counter()
            found[name] = engine.quantize(engine.vectors(rows), embeddings)
            times[name].append(time.perf_counter() - began)
    expected = found["float32"]
    precisions = {
        name: {
            "same_tokens_ratio": float(np.mean(result.codes == expected.codes)),
            # Of the vectors to their codes, each in its own precision.
            "distance_ratio": float(result.distances.sum() / expected.distances.sum()),
            "time_ratio": statistics.median(times[name]) / statistics.median(times["float32"]),
        }
        for name, result in found.items()
    }
    figures = {
        "device": str(engines["float32"].device),
        "threads": torch.get_num_threads(),
        "residues": len(rows.offset),
        "precisions": precisions,
    }
    print("| precision | same tokens as float32 | mean distance, ratio | time, ratio |")
    print("|---|---|---|---|")
    for name, row in precisions.items():
        print(f"| {name} | {row['same_tokens_ratio']:.2%} | {row['distance_ratio']:.4f} | {row['time_ratio']:.2f} |")
    table = {
        "title": f"{model or 'The default model'} on {figures['device']}, {len(rows.offset):,} residues",
        "columns": ["precision", "same tokens as float32, %", "mean distance, ratio", "time, ratio"],
        "rows": [
            [name, 100 * row["same_tokens_ratio"], row["distance_ratio"], row["time_ratio"]]
            for name, row in precisions.items()
        ],
    }
    write(file, {"tables": [table], "bars": [], **figures})


def taken(most: int) -> Neighborhoods:
    """Rows of real chains, one after another."""
    parts = [build_geometry(chain.coordinates, chain.residue_index).rows(slice(None)) for chain in read_parquet(CHAINS)]
    rows = concatenate(parts)
    return rows.part(0, min(most, len(rows.offset)))


if __name__ == "__main__":
    typer.run(main)
