"""The repair of a codebook whose codes were killed on purpose, by strategy.

python -m benchmarks.codebook.repair_strategies --data train.parquet --val val.parquet [--model DIR] --json FILE

A random fraction of the codes is moved far away, with N set to 0. Dead codes are then reset to vectors of a batch by
each strategy, without k-means or with rounds that only they follow. Measured on held-out chains: the quantization error
relative to the original codebook, the fraction of killed codes that are hit, and the churn.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
import typer

from foldmint_maintenance.datasets.loading import read_set
from foldmint_maintenance.datasets.records import prepared
from foldmint_maintenance.datasets.sampling import drawn_chains
from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_maintenance.repair import gates
from foldmint_maintenance.training.latents import vectors_of
from foldmint_maintenance.vq import dead_code_reset
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.store.model_store import load_model

FAR = 1e4


def killed(codebook: Codebook, dead: torch.Tensor) -> Codebook:
    """The codebook with some codes (codes,) bool moved far from all vectors, and without hits."""
    vectors = torch.where(dead[:, None], codebook.embeddings + FAR, codebook.embeddings)
    count = torch.where(dead, torch.zeros_like(codebook.N), codebook.N)
    return Codebook(vectors, count, torch.where(dead[:, None], torch.zeros_like(vectors), codebook.z_avg))


def vectors(encoder: Encoder, path: Path, residues: int, seed: int) -> torch.Tensor:
    """z (rows, out) of chains drawn at random."""
    data = prepared(drawn_chains(read_set(path), residues, seed))
    return vectors_of(encoder, data, np.arange(len(data)), ALONE, "cpu")


def main(
    data: Annotated[Path, typer.Option(help="Data set to repair on.")],
    val: Annotated[Path, typer.Option(help="Data set to measure on.")],
    model: Annotated[Path | None, typer.Option(help="A store; by default, the embedded model.")] = None,
    residues: Annotated[int, typer.Option(help="Residues of the batch that dead codes are reset to.")] = 262_144,
    val_residues: Annotated[int, typer.Option(help="Residues to measure on.")] = 100_000,
    share: Annotated[float, typer.Option(help="Fraction of the codes to kill.")] = 0.1,
    seeds: Annotated[int, typer.Option(help="Repetitions, each with other codes killed.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this JSON file.")] = None,
) -> None:
    """Print a row for each strategy."""
    loaded = load_model(model)
    whole = loaded.codebook.codebook
    z = vectors(loaded.encoder, data, residues, 0)
    seen = vectors(loaded.encoder, val, val_residues, 0)
    unharmed = gates.quantization_figures(seen, whole.embeddings)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        dead = torch.zeros(len(whole.N), dtype=torch.bool)
        dead[torch.randperm(len(dead), generator=generator)[: round(share * len(dead))]] = True
        harmed = killed(whole, dead)
        rows.append(figures_of("killed", 0, seed, harmed, dead, seen, unharmed, 0.0))
        for strategy in get_args(dead_code_reset.Strategy):
            for rounds in (0, 5):
                began = time.perf_counter()
                repaired = dead_code_reset.reset_dead_codes(harmed, dead, z, strategy, rounds, seed, ALONE)
                seconds = time.perf_counter() - began
                rows.append(figures_of(strategy, rounds, seed, repaired, dead, seen, unharmed, seconds))
    report = {"model": loaded.name, "residues": len(z), "val_residues": len(seen), "share": share, "rows": rows}
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print("| strategy | rounds | error / unharmed | killed codes hit | churn | perplexity | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, rounds in dict.fromkeys((row["strategy"], row["rounds"]) for row in rows):
        own = [row for row in rows if (row["strategy"], row["rounds"]) == (name, rounds)]
        mean = {key: float(np.mean([row[key] for row in own])) for key in own[0] if key != "strategy"}
        print(
            f"| {name} | {rounds} | {mean['error_ratio']:.4f} | {mean['killed_hit']:.1%} | {mean['churn']:.2%} "
            f"| {mean['perplexity']:.0f} | {mean['seconds']:.1f} |"
        )


def figures_of(
    strategy: str,
    rounds: int,
    seed: int,
    codebook: Codebook,
    dead: torch.Tensor,
    val: torch.Tensor,
    unharmed: gates.QuantizationFigures,
    seconds: float,
) -> dict[str, Any]:
    """The figures of one codebook; churn against the unharmed one's tokens."""
    use = gates.quantization_figures(val, codebook.embeddings)
    return {
        "strategy": strategy,
        "rounds": rounds,
        "seed": seed,
        "error_ratio": use.error / unharmed.error,
        "killed_hit": float(np.isin(torch.nonzero(dead).flatten().numpy(), use.tokens).mean()),
        "churn": float((use.tokens != unharmed.tokens).mean()),
        "perplexity": use.perplexity,
        "seconds": seconds,
    }


if __name__ == "__main__":
    typer.run(main)
