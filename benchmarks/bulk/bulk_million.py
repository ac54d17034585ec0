"""How long planning and finishing of a job of a million units take, and their memory; units are simulated.

python -m benchmarks bulk-million [--units 1000000] [--json FILE]

On a local folder, and on a small object store with S3's interface, in a process of its own. All units have records; all
shards but the last ones have summaries, as runs of `foldmint-bulk` leave them.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks._common import write
from benchmarks.stress.object_store import BUCKET, renumbered
from foldmint_bulk import create_job, finish, units
from foldmint_bulk.inputs.base import InputOptions, RawStructure
from foldmint_bulk.inputs.registry import KINDS
from foldmint_bulk.output.parts import part_name
from foldmint_bulk.output.records import Record, pack_hits
from foldmint_bulk.output.summaries import Summary
from foldmint_bulk.unit import SHARD, Unit, unit_id


class Simulated:
    """Units of files that are not there."""

    name = "simulated"

    def claims(self, path: str, beside: Container[str]) -> bool:  # noqa: ARG002 (as `InputKind` has it)
        """Whether it is the file that stands for them."""
        return path.endswith(".simulated")

    def check(self, path: str, options: InputOptions) -> None:
        """Nothing is wrong with it."""

    def plan(
        self, paths: Sequence[str], unit_structures: int, options: InputOptions, skipped: Counter[str]
    ) -> Iterator[Unit]:
        """As many units as the file says: ranges of tars of AlphaFold DB's kind."""
        del unit_structures, options, skipped
        for number in range(int(Path(paths[0]).read_text())):
            path = f"s3://afdb/proteome-tax_id-{number // 20}.tar"
            yield Unit(self.name, (path,), number % 20 * 2**30, (number % 20 + 1) * 2**30, 10_000)

    def read(self, unit: Unit, options: InputOptions, skipped: Counter[str]) -> Iterator[RawStructure]:
        """Nothing."""
        raise NotImplementedError


def main(
    count: Annotated[int, typer.Option("--units", help="How many.")] = 1_000_000,
    rest: Annotated[int, typer.Option(help="Shards of 1,000 units that have no summary yet.")] = 2,
    places: Annotated[str, typer.Option(help="local, s3, or both, with a comma.")] = "local,s3",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Plan, go on with, and finish jobs."""
    full = max(0, -(-count // SHARD) - rest)
    figures: dict[str, object] = {"units": count, "shards_without_summary": rest}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "input.simulated").write_text(str(count))
        record, summary = _record(), Summary()
        for number in range(SHARD):
            summary.add(number, record)
        (folder / "record").write_text(json.dumps({**record.row(), "failures": {}}))
        (folder / "part").write_bytes(b"")
        (folder / "summary").write_bytes(summary.to_json())
        if "local" in places:
            _fill(folder / "out", count, full, folder)
            figures["local"] = _measured(str(folder / "out"), folder, None)
        if "s3" in places:
            figures["s3"] = _in_s3(count, full, folder)
    figures["tables"] = [_table(figures)]
    print(json.dumps(figures, indent=1))
    write(json_file, figures)


def _table(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The table of docs/scale.md."""
    steps = {"plan": "planning", "go_on": "finding what is left", "finish": "finishing"}
    places = {"local": "a local folder", "s3": "an object store on the same machine"}
    return {
        "title": f"{figures['units']:,} simulated units",
        "columns": ["step", "where", "seconds", "CPU seconds", "MiB"],
        "rows": [
            [name, where, *(figures[place][step][value] for value in ("seconds", "cpu_seconds", "mebibytes"))]
            for place, where in places.items()
            if place in figures
            for step, name in steps.items()
        ],
    }


def _record() -> Record:
    """A record as of 10,000 structures with 300 residues, whose codes are hit as the embedded model's are."""
    hits = np.random.default_rng(0).zipf(1.3, 3_000_000)
    return Record(
        unit_id(0),
        "attempt",
        part_name(unit_id(0), "attempt"),
        structures=10_000,
        chains=10_000,
        residues=3_000_000,
        framed=3_000_000,
        hits=pack_hits(np.bincount(hits[hits < 4096], minlength=4096)),
    )


def _fill(out: Path, count: int, full: int, folder: Path) -> None:
    template = (folder / "record").read_text()
    for shard in range(-(-count // SHARD)):
        for kind in ("units", "parts"):
            (out / kind / f"{shard:04d}").mkdir(parents=True)
        for number in range(shard * SHARD, min((shard + 1) * SHARD, count)):
            own = unit_id(number)
            content = b"" if shard < full else template.replace("0000/000", own).encode()
            for name, data in ((f"units/{own}.json", content), (f"parts/{own}.attempt.parquet", b"")):
                descriptor = os.open(out / name, os.O_CREAT | os.O_WRONLY)
                os.write(descriptor, data)
                os.close(descriptor)
    (out / "summaries").mkdir()
    for shard in range(full):
        (out / "summaries" / f"{shard:04d}.json").write_bytes(renumbered((folder / "summary").read_text(), shard))


def _in_s3(count: int, full: int, folder: Path) -> dict[str, dict[str, float]]:
    files = [str(folder / name) for name in ("record", "part", "summary")]
    arguments = [sys.executable, "-m", "benchmarks.stress.object_store", str(count), *files, str(full)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            return _measured(f"s3://{BUCKET}/out", folder, server.stdout.readline().strip())
        finally:
            server.kill()


def _measured(out: str, folder: Path, endpoint: str | None) -> dict[str, dict[str, float]]:
    """Seconds and memory, MiB, of each step, in a process of its own."""
    steps: dict[str, Callable[[str, Path], object]] = {"plan": _plan, "go_on": _go_on, "finish": _finish}
    figures = {}
    for name, step in steps.items():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            figures[name] = pool.submit(_run, step, out, folder, endpoint).result()
    return figures


def _run(step: Callable[[str, Path], object], out: str, folder: Path, endpoint: str | None) -> dict[str, float]:
    if endpoint is not None:
        os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a"}
        os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    KINDS["simulated"] = Simulated()
    began, before = time.monotonic(), time.process_time()
    step(out, folder)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - before, 1),
        "mebibytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _plan(out: str, folder: Path) -> None:
    create_job([str(folder / "input.simulated")], out)


def _go_on(out: str, folder: Path) -> None:
    assert not len(units(out)), folder


def _finish(out: str, folder: Path) -> None:
    total = int((folder / "input.simulated").read_text())
    assert finish(out).units == total
