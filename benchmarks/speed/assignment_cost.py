"""The cost of assignment: residues a second of a model's tokenizer by assignment, next to another model.

    python -m benchmarks.speed.assignment_cost --data val.parquet [--model DIR] [--against DIR] [--json FILE]

In process, with torch's number of threads. Models and assignments alternate chain by chain, so that other work on the
machine affects all equally; the first round is not counted.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from foldmint_maintenance.datasets.loading import read_set
from foldmint_tokenizer import Assignment, StructureTokenizer
from foldmint_tokenizer.structure.backbone import backbone


def main(
    data: Annotated[Path, typer.Option(help="Data set of chains.")],
    model: Annotated[str | None, typer.Option(help="A store; by default the embedded model.")] = None,
    against: Annotated[str | None, typer.Option(help="Another store, timed with independent tokens only.")] = None,
    chains: Annotated[int, typer.Option(help="How many.")] = 100,
    rounds: Annotated[int, typer.Option(help="That are counted.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this JSON file.")] = None,
) -> None:
    """Print a line for each."""
    some = [
        backbone(record.coordinates, record.residue_index, chain=record.id[:4], sequence=record.sequence)
        for record, _ in zip(read_set(data), range(chains), strict=False)
    ]
    tokenizer = StructureTokenizer.load(model)
    timed = [(str(assignment), tokenizer, assignment) for assignment in Assignment]
    if against is not None:
        timed.append(("against", StructureTokenizer.load(against), Assignment.INDEPENDENT))
    seconds = dict.fromkeys((name for name, _, _ in timed), 0.0)
    for turn in range(rounds + 1):
        for chain in some:
            for name, own, assignment in timed:
                began = time.process_time()
                own.tokenize(chain, assignment=assignment)
                seconds[name] += (time.process_time() - began) * (turn > 0)
    residues = rounds * sum(len(chain) for chain in some)
    rates = {name: residues / spent for name, spent in seconds.items()}
    shares = {f"{name}_share": 1 - rates[name] / rates["independent"] for name in ("anchored", "tracking")}
    for name, rate in rates.items():
        print(f"{name}: {rate:.0f} residues per second of CPU time, {rate / rates['independent']:.3f} of independent")
    for name, share in shares.items():
        print(f"{name.removesuffix('_share')} takes {share:.1%} of the time of tokenizing")
    if json_file is not None:
        json_file.write_text(json.dumps(rates | shares, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
