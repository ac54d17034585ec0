"""Whether bulk jobs give the rows of a plain loop, whatever is killed, damaged or full meanwhile.

python -m benchmarks bulk-exact --data SET [--data SET] [--structures 20000] [--json FILE]
"""

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import torch
import typer
from pyarrow import parquet

from benchmarks._common import write
from benchmarks.stress.bulk_inputs import differing, plain_loop, rows_of, write_archives
from benchmarks.stress.bulk_runs import full_disk, run, run_until_done
from benchmarks.stress.progress import tell
from foldmint_bulk.engines.registry import ENGINES
from foldmint_maintenance.datasets.loading import read_set
from foldmint_tokenizer import StructureTokenizer

OPTIONS = ("--device", "cpu", "--workers", "2", "--parser-memory", "0.5")


def main(
    data: Annotated[list[Path], typer.Option(help="Sets of backbones, as `foldmint-maintenance evaluate` takes them.")],
    structures: Annotated[int, typer.Option(help="Of the sets, that are used.")] = 20_000,
    members: Annotated[int, typer.Option(help="Structures an archive.")] = 1_000,
    unit_structures: Annotated[int, typer.Option(help="Structures a unit.")] = 250,
    kills: Annotated[int, typer.Option(help="Workers, and parsers, and drivers that are killed.")] = 5,
    within: Annotated[float, typer.Option(min=0.2, help="Seconds to the next kill, at most.")] = 20,
    slices: Annotated[int, typer.Option(help="Slices of a job that is run in slices.")] = 3,
    disk: Annotated[bool, typer.Option(help="Also fill a small disk; needs an administrator's rights.")] = True,
    seed: int = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Compare jobs with a plain loop."""
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(
            data,
            Path(folder),
            structures=structures,
            members=members,
            unit_structures=unit_structures,
            kills=kills,
            within=within,
            slices=slices,
            disk=disk,
            seed=seed,
        )
    print(json.dumps(figures, indent=1))
    write(json_file, figures)


def compare(
    data: Sequence[Path],
    folder: Path,
    *,
    structures: int,
    members: int,
    unit_structures: int,
    kills: int,
    within: float,
    slices: int,
    disk: bool,
    engines: Sequence[str] = tuple(ENGINES),
    seed: int = 0,
) -> Mapping[str, object]:
    """Figures of a comparison. Raises AssertionError if a job differs from the plain loop."""
    records = chain.from_iterable(read_set(path) for path in data)
    made = write_archives(islice(records, structures), folder / "archives", members, harm=True, seed=seed)
    torch.set_num_threads(1)
    count, residues = plain_loop(StructureTokenizer.load(), made.paths, folder / "plain.parquet")
    plain, log, chooser = rows_of(folder / "plain.parquet"), folder / "log", random.Random(seed)  # noqa: S311 (kills are no secrets)
    arguments = [*map(str, made.paths), "--unit-structures", str(unit_structures), *OPTIONS]
    tell(f"the plain loop: {count:,} structures, {residues:,} residues, {plain.num_rows:,} rows")
    jobs: list[list[object]] = []

    def agrees(out: Path, name: str, harm: str) -> None:
        _agree(out, plain, made.bombs)
        jobs.append([name, harm, plain.num_rows, 0])
        tell(f"{name}: as the plain loop")

    wanted = dict.fromkeys(("worker", "parser", "driver"), kills)
    killed = run_until_done([*arguments, "-o", str(folder / "killed")], chooser, wanted, log, within)
    agrees(folder / "killed", "local, two workers", ", ".join(f"{number} {kind}" for kind, number in killed.items()))

    for number in range(slices):
        assert run(*arguments, "-o", str(folder / "sliced"), "--slice", f"{number}/{slices}", log=log) == 0
    if slices:
        agrees(folder / "sliced", f"{slices} slices", "none")

    if disk:
        with full_disk(folder / "disk", 2**16) as filler:
            out = folder / "disk" / "out"
            assert run(*arguments, "-o", str(out), log=log) == 1
            assert "No space left" in log.read_text()
            assert not (out / "DONE").exists()
            filler.unlink()
            assert run(*arguments, "-o", str(out), log=log) == 0, log.read_text()[-2000:]
            agrees(out, "local, resumed", "disk full")
    for engine in engines:
        out = folder / f"engine-{engine}"
        # On a busy machine Ray may not start in the time that it allows itself; the command is then to be run again.
        codes = (
            run(*arguments, "-o", str(out), "--engine", engine, log=log) for _ in range(3 if engine == "ray" else 1)
        )
        assert 0 in codes, log.read_text()[-2000:]
        agrees(out, f"{engine}, two workers", "none")

    table = {
        "title": f"{count:,} real structures, {residues:,} residues, in {len(made.paths)} tars",
        "columns": ["job", "killed meanwhile, and other harm", "rows", "rows that differ from the plain loop"],
        "rows": jobs,
    }
    return {"structures": count, "residues": residues, "rows": plain.num_rows, "killed": killed, "tables": [table]}


def _agree(out: Path, plain: pa.Table, bombs: list[str]) -> None:
    found = rows_of(out)
    assert differing(plain, found) == [], f"{out.name} differs from the plain loop"
    assert (out / "DONE").exists()
    assert not [*out.rglob("*.part")]
    failures = parquet.read_table(out / "failures.parquet").to_pylist()
    assert sorted(one["source"] for one in failures if one["kind"] == "Killed") == sorted(bombs)
    hits = np.zeros(4096, np.int64)
    for tokens, frames in zip(found.column("tokens"), found.column("has_frame"), strict=True):
        hits += np.bincount(np.array(tokens.as_py())[np.array(frames.as_py())], minlength=4096)
    assert json.loads((out / "usage.json").read_text())["counts"] == hits.tolist()
