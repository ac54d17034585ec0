"""The unit function: its rows are those of a plain loop, its record is written once, and structures fail alone."""

import gzip
import os
import signal
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from benchmarks.stress.bulk_inputs import Archives, differing, plain_loop, rows_of
from benchmarks.stress.bulk_runs import descendants
from foldmint_bulk import JobDiffers, Unit, Worker, finish, units
from foldmint_bulk.parsing.pool import ParserLimits
from foldmint_tokenizer import Assignment, StructureTokenizer
from helpers.waiting import wait_until


@pytest.mark.parametrize("assignment", ["independent", "anchored"])
def test_the_rows_of_a_plain_loop(
    archives: Archives, tokenizer: StructureTokenizer, make_job: Any, make_worker: Any, tmp_path: Path, assignment: str
) -> None:
    job = make_job(assignment=assignment)
    worker = make_worker(job)
    records = [worker(unit) for unit in units(job.out)]
    assert [record["structures"] for record in records] == [2, 2, 2, 2]
    plain_loop(tokenizer, archives.paths, tmp_path / "plain.parquet", Assignment(assignment))
    plain, found = rows_of(tmp_path / "plain.parquet"), rows_of(tmp_path / "out", parts=[r["part"] for r in records])
    assert plain.num_rows == 8
    assert differing(plain, found) == []
    footer = parquet.read_schema(tmp_path / "out" / records[0]["part"]).metadata
    assert footer[b"encoder_digest"].decode() == tokenizer.model.encoder_digest
    assert footer[b"codebook_digest"].decode() == tokenizer.model.codebook.digest
    assert list(units(job.out)) == []


def test_a_unit_is_recorded_once(make_job: Any, make_worker: Any) -> None:
    job = make_job()
    unit, *rest = units(job.out)
    first, second = make_worker(job), make_worker(job)
    together: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda one=one: together.append(one(unit))) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together[0] == together[1] == first(unit.row())
    assert [one.id for one in units(job.out)] == [one.id for one in rest]
    assert [str(one) for one in Path(job.out).glob("parts/*/*")] == [f"{job.out}/{together[0]['part']}"]


def test_structures_fail_alone(archives: Archives, make_job: Any, make_worker: Any, tmp_path: Path) -> None:
    whole = archives.paths[0].read_bytes()
    (tmp_path / "torn.tar").write_bytes(whole[: len(whole) * 2 // 3])
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.pdb").write_text("no structure")
    with tarfile.open(archives.paths[0]) as tar:
        name = tar.getnames()[0]
        member = tar.extractfile(name)
        assert member is not None
        (folder / "b.pdb.gz").write_bytes(gzip.compress(member.read()))
    (folder / "c.cif.gz").symlink_to("nowhere")
    job = make_job(folder, tmp_path / "torn.tar", unit_structures=100)
    worker = make_worker(job)
    records = [worker(unit) for unit in units(job.out)]
    assert records[0]["failures"] == '{"InvalidStructure": 1, "Unreadable": 1}'
    assert records[0]["structures"] == 1
    assert records[1]["failures"] == '{"Unreadable": 1}'
    assert records[1]["structures"] in (1, 2)
    assert finish(job.out).structures == sum(record["structures"] for record in records)
    failures = parquet.read_table(tmp_path / "out" / "failures.parquet").to_pylist()
    assert [(one["kind"], one["source"].rpartition("/")[2].partition("[")[0]) for one in failures] == [
        ("InvalidStructure", "a.pdb"),
        ("Unreadable", "c.cif.gz"),
        ("Unreadable", "torn.tar"),
    ]


def test_what_is_skipped_in_a_compressed_tar_is_counted(
    make_job: Any, make_worker: Any, archives: Archives, tmp_path: Path
) -> None:
    path = tmp_path / "some.tar.gz"
    with tarfile.open(archives.paths[0]) as plain, tarfile.open(path, "w:gz") as packed:
        for member in plain:
            packed.addfile(member, plain.extractfile(member))
        packed.addfile(tarfile.TarInfo("about.json"))
    job = make_job(path)
    worker = make_worker(job)
    (record,) = (worker(unit) for unit in units(job.out))
    assert (record["structures"], record["skipped"]) == (4, '{".json": 1}')
    assert finish(job.out).skipped == {".json": 1}


def test_a_structure_that_needs_too_much_memory(
    make_job: Any, make_worker: Any, archives: Archives, tmp_path: Path
) -> None:
    bomb = tmp_path / "bomb.cif.gz"
    bomb.write_bytes(gzip.compress(b"data_bomb\nloop_\n_a.b\n" + b"x\n" * 20_000_000, 1))
    job = make_job(bomb, archives.paths[0], unit_structures=100)
    worker = make_worker(job, limits=ParserLimits(memory=2**29))
    failed, done = (worker(unit) for unit in units(job.out))
    assert (failed["failures"], failed["structures"]) == ('{"Killed": 1}', 0)
    assert (done["failures"], done["structures"]) == ("{}", 4)


def test_a_structure_that_takes_too_long(make_job: Any, make_worker: Any, tmp_path: Path) -> None:
    slow = tmp_path / "slow.cif.gz"
    slow.write_bytes(gzip.compress(b"data_slow\nloop_\n_a.b\n" + b"x\n" * 20_000_000, 1))
    job = make_job(slow)
    worker = make_worker(job, limits=ParserLimits(seconds=0.2))
    (unit,) = units(job.out)
    assert worker(unit)["failures"] == '{"Killed": 1}'
    (failure,) = parquet.read_table(Path(job.out) / "failures").to_pylist()
    assert failure["reason"] == "reading it takes more than 0.2 s"


def test_a_parser_that_is_killed_loses_nothing(
    make_job: Any, make_worker: Callable[..., Worker], archives: Archives, tmp_path: Path
) -> None:
    job = make_job(unit_structures=100)
    killed = list[int]()

    def kill(_: object) -> None:
        if not killed:
            killed.extend(descendants(os.getpid(), "parser"))
            os.kill(killed[0], signal.SIGKILL)

    worker = Worker(job, device="cpu", parsers=1, threads=1, report=kill)
    with worker:
        records = [worker(unit) for unit in units(job.out)]
    assert killed
    assert [record["structures"] for record in records] == [4, 4]
    assert [record["failures"] for record in records] == ["{}", "{}"]


def test_parsers_end_with_their_worker(make_job: Any) -> None:
    with Worker(make_job(), device="cpu", parsers=2, threads=1) as worker:
        for unit in units(worker.job.out):
            worker(unit)
        assert descendants(os.getpid(), "parser")
    wait_until(lambda: not descendants(os.getpid(), "parser"))


def test_the_model_of_the_job_alone(make_job: Any) -> None:
    job = make_job()
    with pytest.raises(JobDiffers, match="another codebook"):
        Worker(type(job)(job.out, _other(job.model), job.options, job.inputs), device="cpu")


def _other(model: Any) -> Any:
    return type(model)(**{**vars(model), "codebook_digest": "0" * 64})


def test_units_as_rows() -> None:
    unit = Unit("tar", ("a.tar",), 512, 1024, 1, "", "0000/007")
    assert Unit.of(unit.row()) == unit
