"""A complete repair of a model whose codes were killed on purpose.

python -m benchmarks.codebook.repair_proof --data train.parquet --val val.parquet [--model DIR] --json FILE

In a copy of the store, a fraction of the codes is moved far away, with N set to 0. The job repairs the copy on the
first set, with the second for its gates. Then the original, the harmed and the repaired model are measured on chains of
the second set; for a decoder that reads token ids, also without retraining the rows of replaced codes.
"""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks.codebook.repair_strategies import killed
from foldmint_maintenance.datasets.loading import read_set
from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.datasets.sampling import drawn_chains
from foldmint_maintenance.evaluation.evaluate import EvaluationConfig, evaluate
from foldmint_maintenance.repair.config import RepairConfig, RepairJob
from foldmint_maintenance.repair.job import repair
from foldmint_maintenance.vq.dead_code_reset import Strategy
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.store.model_store import DEFAULT, Store


def main(
    data: Annotated[Path, typer.Option(help="Data set to repair on.")],
    val: Annotated[Path, typer.Option(help="Data set to measure on.")],
    model: Annotated[Path | None, typer.Option(help="A store; by default, the embedded model.")] = None,
    share: Annotated[float, typer.Option(help="Fraction of the codes to kill.")] = 0.1,
    strategy: Annotated[Strategy, typer.Option(help="The repair's strategy.")] = "kmeans++",
    val_residues: Annotated[int, typer.Option(help="Residues to measure on, rounded to whole chains.")] = 260_000,
    longest: Annotated[int, typer.Option(help="Decode chains of up to this many residues.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed that selects the codes to kill.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this JSON file.")] = None,
) -> None:
    """Print a row for each state of the model."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        shutil.copytree(model or DEFAULT, Path(folder) / "store")
        unharmed = store.active()
        whole = store.codebook(unharmed).codebook
        dead = torch.zeros(len(whole.N), dtype=torch.bool)
        generator = torch.Generator().manual_seed(seed)
        dead[torch.randperm(len(dead), generator=generator)[: round(share * len(dead))]] = True
        harmed = store.publish(killed(whole, dead), parent=unharmed, about={}).version
        store.activate(harmed)
        config = RepairConfig(strategy=strategy, gate_decoded=longest)
        done = repair(RepairJob(str(store.files), config, data, gate_data=val), None, lambda text: print(f"- {text}"))
        repaired = store.load(done.version)
        codes = torch.nonzero(dead).flatten().numpy()
        chains = drawn_chains(read_set(val), val_residues, 0)
        states = {"unharmed": store.load(unharmed), "harmed": store.load(harmed)}
        if repaired.codebook.decoder_rows is not None:
            states["repaired, rows not retrained"] = replace(
                repaired, codebook=replace(repaired.codebook, decoder_rows=store.codebook(harmed).decoder_rows)
            )
        states["repaired"] = repaired
        found = {name: _measured(state, chains, longest, codes) for name, state in states.items()}
    if json_file is not None:
        json_file.write_text(json.dumps({"states": found, "repair": done.as_json()}, indent=2) + "\n", encoding="utf-8")
    print("| codebook | mean squared distance | killed codes hit | perplexity | backbone RMSD, Å | lDDT-CA |")
    print("|---|---|---|---|---|---|")
    first = found["unharmed"]
    for name, each in found.items():
        ratio = {key: each[key] / first[key] for key in ("squared_distance", "backbone_rmsd", "lddt_ca")}
        print(
            f"| {name} | {each['squared_distance']:.4g} ({ratio['squared_distance']:.4f}) | {each['killed_hit']:.1%} "
            f"| {each['perplexity']:.0f} | {each['backbone_rmsd']:.3f} ({ratio['backbone_rmsd']:.4f}) "
            f"| {each['lddt_ca']:.4f} ({ratio['lddt_ca']:.4f}) |"
        )
    print(f"\n{done.dead} dead, {len(done.replaced)} replaced, churn {done.churn}, live rows {done.gates['live_rows']}")


def _measured(model: Model, chains: list[Record], longest: int, codes: NDArray[np.int64]) -> dict[str, float]:
    result = evaluate(model, chains, config=EvaluationConfig(max_decode_residues=longest))
    assert result.details is not None
    return {
        "squared_distance": result.quantization_squared_distance_mean,
        "killed_hit": float((result.details.counts[codes] > 0).mean()) if len(codes) else np.nan,
        "perplexity": result.perplexity,
        "backbone_rmsd": result.backbone_rmsd_median or np.nan,
        "lddt_ca": result.lddt_ca_median or np.nan,
    }


if __name__ == "__main__":
    typer.run(main)
