"""What a bulk job costs beside a plain loop: CPU time a residue of the unit function, and the rate of two workers.

python -m benchmarks bulk-speed --data SET [--structures 400] [--repeats 5] [--json FILE]

Both are ratios within one run, of tasks that take turns. CPU time is compared on one core, and on all: on several, a
unit's parser computes beside its encoder, and two busy cores that share caches and clock take more CPU time for the
same work, as two plain loops side by side do.
"""

import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Annotated, TypeVar

import torch
import typer

from benchmarks._common import write
from benchmarks.stress.bulk_inputs import plain_loop, write_archives
from foldmint_bulk import Job, JobOptions, Worker, WorkerSettings, create_job, units
from foldmint_bulk.engines.local import run
from foldmint_bulk.worker import Progress
from foldmint_maintenance.datasets.loading import read_set
from foldmint_tokenizer import StructureTokenizer

T = TypeVar("T")
_SETTINGS = WorkerSettings("cpu", 1, 1)


def main(
    data: Annotated[Path, typer.Option(help="A set of backbones, as `foldmint-maintenance evaluate` takes it.")],
    structures: Annotated[int, typer.Option(help="Of the set, that are used; half of them in each of two tars.")] = 400,
    repeats: Annotated[int, typer.Option(help="Times that each task is done.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measure, and print the ratios."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archives = write_archives(islice(read_set(data), structures), folder / "in", -(-structures // 2), harm=False)
        figures: dict[str, object] = {
            "structures": archives.structures,
            "repeats": repeats,
            "cpu_time_ratio": {
                "one core": _on_one_core(partial(_cpu_times, archives.paths, folder / "one", repeats)),
                "all cores": _cpu_times(archives.paths, folder / "all", repeats),
            },
            "rate_ratio": _rates(archives.paths, folder, repeats),
        }
    print(json.dumps(figures, indent=1))
    write(json_file, figures)


def _on_one_core(task: Callable[[], T]) -> T:
    """What a task returns, for which this process and its children have one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        return task()
    finally:
        os.sched_setaffinity(0, before)


def _cpu_times(paths: list[Path], folder: Path, repeats: int) -> dict[str, object]:
    """CPU time a residue of the unit function, its parsers included, over that of the plain loop."""
    folder.mkdir()
    tokenizer = StructureTokenizer.load()
    plain_loop(tokenizer, paths[:1], folder / "warm.parquet")
    (nothing := folder / "nothing.pdb").write_bytes(b"")
    plain, bulk = list[float](), list[float]()
    for number in range(repeats):
        before = time.process_time()
        _, residues = plain_loop(tokenizer, paths, folder / "plain.parquet")
        plain.append((time.process_time() - before) / residues * 1e6)
        job = create_job(list(map(str, paths)), str(folder / f"job-{number}"))
        empty = create_job([str(nothing)], str(folder / f"empty-{number}"))
        # Parsers count when they have ended. The start of worker and parser is that of a job of an empty file.
        start = _with_children(partial(_units, empty.out))
        bulk.append((_with_children(partial(_units, job.out)) - start) / residues * 1e6)
    return {"microseconds": {"plain": plain, "bulk": bulk}, "ratio": _ratio(bulk, plain)}


def _with_children(task: Callable[[], object]) -> float:
    """CPU time of a task, in this process and in children that end within it."""
    before = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    task()
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) - before


def _units(out: str) -> None:
    """Do a job's units."""
    with Worker(out, _SETTINGS) as worker:
        for unit in units(out):
            worker(unit)


def _rates(paths: list[Path], folder: Path, repeats: int) -> dict[str, object]:
    """Residues a second of the local engine's two workers once started, over those of two plain loops side by side."""
    plain, bulk = list[float](), list[float]()
    for number in range(repeats):
        plain.append(_plain_rate(paths, folder))
        out = folder / f"rate-{number}"
        # Small units, so that both workers end at about the same time.
        create_job(list(map(str, paths)), str(out), options=JobOptions(unit_structures=20))
        bulk.append(_bulk_rate(str(out)))
        shutil.rmtree(out)
    return {"residues_per_second": {"plain": plain, "bulk": bulk}, "ratio": _ratio(bulk, plain)}


def _bulk_rate(out: str) -> float:
    """From the first report of a worker on, which both have started by then or soon after."""
    times, counted = list[float](), list[int]()

    def report(progress: Progress) -> None:
        times.append(time.monotonic())
        counted.append(progress.residues)

    for _ in run(Job.load(out), units(out), 2, _SETTINGS, report):
        pass
    return sum(counted[1:]) / (times[-1] - times[0])


def _plain_rate(paths: list[Path], folder: Path) -> float:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(len(paths) + 1)
    found: multiprocessing.Queue[int] = context.Queue()
    loops = [context.Process(target=_loop, args=(path, folder, ready, found)) for path in paths]
    for loop in loops:
        loop.start()
    ready.wait()
    began = time.monotonic()
    residues = sum(found.get() for _ in loops)
    seconds = time.monotonic() - began
    for loop in loops:
        loop.join()
    return residues / seconds


def _loop(path: Path, folder: Path, ready: Barrier, found: "multiprocessing.Queue[int]") -> None:
    torch.set_num_threads(1)
    tokenizer = StructureTokenizer.load()
    ready.wait()
    _, residues = plain_loop(tokenizer, [path], folder / f"{path.name}.parquet")
    found.put(residues)


def _ratio(first: list[float], second: list[float]) -> float:
    return round(median(a / b for a, b in zip(first, second, strict=True)), 3)
