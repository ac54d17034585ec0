"""Whether bulk jobs give the rows of a plain loop, whatever is killed, damaged or full meanwhile.

python -m benchmarks bulk-exact --data SET [--structures 20000] [--json FILE]
"""

import json
import random
import tempfile
from collections.abc import Mapping
from itertools import islice
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
from foldmint_bulk.engines.registry import ENGINES
from foldmint_maintenance.datasets.loading import read_set
from foldmint_tokenizer import StructureTokenizer

OPTIONS = ("--device", "cpu", "--workers", "2", "--parser-memory", "0.5")


def main(
    data: Annotated[Path, typer.Option(help="A set of backbones, as `foldmint-maintenance evaluate` takes it.")],
    structures: Annotated[int, typer.Option(help="Of the set, that are used.")] = 20_000,
    members: Annotated[int, typer.Option(help="Structures an archive.")] = 1_000,
    unit_structures: Annotated[int, typer.Option(help="Structures a unit.")] = 250,
    kills: Annotated[int, typer.Option(help="Workers, and parsers, and drivers that are killed.")] = 5,
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
            slices=slices,
            disk=disk,
            seed=seed,
        )
    print(figures)
    write(json_file, figures)


def compare(
    data: Path,
    folder: Path,
    *,
    structures: int,
    members: int,
    unit_structures: int,
    kills: int,
    slices: int,
    disk: bool,
    seed: int = 0,
) -> Mapping[str, object]:
    """Figures of a comparison. Raises AssertionError if a job differs from the plain loop."""
    made = write_archives(islice(read_set(data), structures), folder / "archives", members, harm=True, seed=seed)
    torch.set_num_threads(1)
    count, residues = plain_loop(StructureTokenizer.load(), made.paths, folder / "plain.parquet")
    plain, log, chooser = rows_of(folder / "plain.parquet"), folder / "log", random.Random(seed)  # noqa: S311 (kills are no secrets)
    arguments = [*map(str, made.paths), "--unit-structures", str(unit_structures), *OPTIONS]
    figures: dict[str, object] = {"structures": count, "residues": residues, "rows": plain.num_rows}

    killed = run_until_done(
        [*arguments, "-o", str(folder / "killed")], chooser, dict.fromkeys(("worker", "parser", "driver"), kills), log
    )
    _agree(folder / "killed", plain, made.bombs)
    figures["killed"] = dict(killed)

    for engine in ENGINES:
        out = folder / f"engine-{engine}"
        assert run(*arguments, "-o", str(out), "--engine", engine, log=log) == 0, log.read_text()[-2000:]
        _agree(out, plain, made.bombs)
    figures["engines"] = list(ENGINES)

    for number in range(slices):
        assert run(*arguments, "-o", str(folder / "sliced"), "--slice", f"{number}/{slices}", log=log) == 0
    if slices:
        _agree(folder / "sliced", plain, made.bombs)
    figures["slices"] = slices

    if disk:
        with full_disk(folder / "disk", 2**16) as filler:
            out = folder / "disk" / "out"
            assert run(*arguments, "-o", str(out), log=log) == 1
            assert "No space left" in log.read_text()
            assert not (out / "DONE").exists()
            filler.unlink()
            assert run(*arguments, "-o", str(out), log=log) == 0, log.read_text()[-2000:]
            _agree(out, plain, made.bombs)
        figures["full_disk"] = True
    return figures


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
