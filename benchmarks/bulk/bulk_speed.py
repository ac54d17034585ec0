"""What a bulk job costs beside a plain loop: CPU time a residue of the unit function, and the rate of two workers.

python -m benchmarks bulk-speed --data SET [--structures 400] [--repeats 5] [--json FILE]

Both are ratios within one run, of tasks that take turns. CPU time is compared on one core, and on all: on several, a
unit's parser computes beside its encoder, and two busy cores that share caches and clock take more CPU time for the
same work, as two plain loops side by side do.
"""

import json
import multiprocessing
import os
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
from benchmarks.stress.bulk_runs import descendants
from foldmint_bulk import Job, JobOptions, Worker, WorkerSettings, create_job, units
from foldmint_bulk.engines.local import run
from foldmint_bulk.worker import Progress
from foldmint_client.io.archives import Members
from foldmint_maintenance.datasets.loading import read_set
from foldmint_tokenizer import StructureTokenizer, read_structure
from foldmint_tokenizer.neighborhoods import structure_geometry

T = TypeVar("T")
_SETTINGS = WorkerSettings("cpu", 1, 1)
_PARTS = ("encoding thread", "other threads", "parser")


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
    """CPU time a residue of the unit function, its parser included, over that of the plain loop, and where it goes."""
    folder.mkdir()
    tokenizer = StructureTokenizer.load()
    plain_loop(tokenizer, paths[:1], folder / "warm.parquet")
    # The first unit starts the parser, and is not counted.
    (first := folder / "first.pdb").write_bytes(b"")
    taken: dict[str, list[float]] = {name: [] for name in ("plain", "reading", "bulk", *_PARTS)}
    for number in range(repeats):
        before = time.process_time()
        _, residues = plain_loop(tokenizer, paths, folder / "plain.parquet")
        taken["plain"].append(time.process_time() - before)
        before = time.process_time()
        _read(paths)
        taken["reading"].append(time.process_time() - before)
        job = create_job([str(first), *map(str, paths)], str(folder / f"job-{number}"))
        parts = _units(job.out)
        taken["bulk"].append(sum(parts))
        for name, seconds in zip(_PARTS, parts, strict=True):
            taken[name].append(seconds)
    microseconds = {name: [one / residues * 1e6 for one in seconds] for name, seconds in taken.items()}
    return {"microseconds": microseconds, "ratio": _ratio(microseconds["bulk"], microseconds["plain"])}


def _read(paths: list[Path]) -> None:
    """What a parser does, in this process."""
    for path in paths:
        for _, content in Members(path).read():
            assert isinstance(content, bytes)
            structure_geometry(read_structure(content).chains)


def _units(out: str) -> tuple[float, float, float]:
    """CPU time of a job's units but the first, as `_PARTS` has it."""
    with Worker(out, _SETTINGS) as worker:
        first, *others = units(out)
        worker(first)
        (parser,) = descendants(os.getpid(), "parser")
        before = time.thread_time(), time.process_time(), _cpu_time(parser)
        for unit in others:
            worker(unit)
        main, whole, child = (
            after - one
            for after, one in zip((time.thread_time(), time.process_time(), _cpu_time(parser)), before, strict=True)
        )
    return main, whole - main, child


def _cpu_time(pid: int) -> float:
    """Seconds of CPU time that the one thread of a process has had."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


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
