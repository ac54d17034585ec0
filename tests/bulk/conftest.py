"""Archives of real chains, and jobs of them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.stress.bulk_inputs import Archives, write_archives
from foldmint_bulk import Job, JobOptions, Worker, create_job
from foldmint_maintenance.datasets.records import read_parquet
from foldmint_tokenizer import StructureTokenizer
from helpers.support import DATA

MakeJob = Callable[..., Job]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """Two tars of four short chains each."""
    short = [record for record in read_parquet(DATA / "chains.parquet") if len(record.sequence) < 90]
    folder = tmp_path_factory.mktemp("bulk") / "archives"
    return write_archives((short * 8)[:8], folder, 4, harm=False)


@pytest.fixture(scope="session")
def tokenizer() -> StructureTokenizer:
    return StructureTokenizer.load()


@pytest.fixture
def make_job(archives: Archives, tmp_path: Path) -> MakeJob:
    """Plans a job of the archives, of two structures a unit, in `tmp_path / "out"`."""

    def make(*inputs: object, out: str = "", **options: Any) -> Job:
        given = inputs or archives.paths
        chosen = JobOptions(**({"unit_structures": 2} | options))
        return create_job([str(one) for one in given], out or str(tmp_path / "out"), options=chosen)

    return make


@pytest.fixture
def make_worker() -> Iterator[Callable[..., Worker]]:
    """Makes workers on the CPU, with one parser each; closed at the end."""
    made = []

    def make(job: Job, **settings: Any) -> Worker:
        given: dict[str, Any] = {"device": "cpu", "parsers": 1, "threads": 1, **settings}
        made.append(Worker(job, **given))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def command() -> Command:
    """Runs the command in a process of its own, on the CPU."""

    def run(*arguments: object, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
        given = [str(argument) for argument in arguments]
        if "--help" not in given:
            given += ["--device", "cpu"]
        return subprocess.run(
            [sys.executable, "-m", "foldmint_bulk.cli", *given],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    return run
