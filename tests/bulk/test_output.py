"""A job's output: what is left is found, what no record names is removed, in a folder as in S3."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from foldmint_bulk import (
    Job,
    JobDiffers,
    JobOptions,
    OutputError,
    Unfinished,
    Units,
    create_job,
    finish,
    units,
)
from foldmint_bulk.finishing import reopen
from foldmint_bulk.job import ModelIdentity
from foldmint_bulk.output.completion import Tracker, recorded
from foldmint_bulk.output.parts import failures_name, part_name, write_failures
from foldmint_bulk.output.records import Record, create_record, name_of, pack_hits, read_record, unpack_hits
from foldmint_bulk.parsing.results import Failure
from foldmint_bulk.storage import in_parallel, open_output
from foldmint_bulk.unit import SHARD, Unit, unit_id, unit_number


def test_what_no_record_names_is_removed(make_job: Any, make_worker: Any, tmp_path: Path) -> None:
    job = make_job()
    out = Path(job.out)
    worker = make_worker(job)
    records = [worker(unit) for unit in units(job.out)]
    lost = [
        out / "parts/0000/000.00000000.parquet",
        out / "parts/0000/.001.00000000.parquet.0.part",
        out / "units/0000/.001.json.0.part",
        out / "failures/0000/000.00000000.parquet",
        out / ".job.json.0.part",
    ]
    for path in lost:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"lost")
    finish(job.out)
    assert not [path for path in lost if path.exists()]
    assert all((out / record["part"]).exists() for record in records)


def test_a_job_that_is_not_finished(make_job: Any, make_worker: Any) -> None:
    job = make_job()
    worker = make_worker(job)
    for unit in list(units(job.out))[:3]:
        worker(unit)
    with pytest.raises(Unfinished, match="1 of 4 units"):
        finish(job.out)
    assert not (Path(job.out) / "DONE").exists()
    assert [unit.id for unit in units(job.out, (1, 2))] == ["0000/003"]
    assert [unit.id for unit in units(job.out, (0, 2))] == []


def test_a_record_of_another_job(make_job: Any) -> None:
    job = make_job()
    create_record(open_output(job.out), Record(unit_id(7)))
    with pytest.raises(OutputError, match="is of no unit of this job"):
        units(job.out)


def test_records_are_created_once(tmp_path: Path) -> None:
    files = open_output(str(tmp_path))
    create_record(files, Record("0000/001", "first"))
    with pytest.raises(FileExistsError):
        create_record(files, Record("0000/001", "second"))
    found = read_record(files, "0000/001")
    assert found is not None
    assert found.attempt == "first"
    assert read_record(files, "0000/002") is None
    (tmp_path / name_of("0000/001")).write_text("{}")
    with pytest.raises(OutputError, match="is damaged"):
        read_record(files, "0000/001")


def test_a_job_in_s3(bucket: str, archives: Any, make_worker: Any, tmp_path: Path) -> None:
    """Inputs and output; equal to the job in a folder but for its attempts."""
    import s3fs

    system = s3fs.S3FileSystem()
    for path in archives.paths:
        system.put_file(str(path), f"{bucket}/in/{path.name}")
    out = f"{bucket}/out"
    job = create_job([f"{bucket}/in"], out)
    with pytest.raises(JobDiffers):
        create_job([f"{bucket}/other"], out)
    worker = make_worker(job)
    records = [worker(unit) for unit in units(out)]
    assert [record["structures"] for record in records] == [8 // len(records)] * len(records)
    system.pipe_file(f"{bucket}/out/parts/0000/000.lost.parquet", b"lost")
    summary = finish(out)
    assert summary.structures == 8
    assert not system.exists(f"{bucket}/out/parts/0000/000.lost.parquet")
    assert json.loads(system.cat_file(f"{bucket}/out/DONE"))["structures"] == 8
    with system.open(f"{bucket}/out/{records[0]['part']}") as stream:
        assert parquet.read_table(stream).num_rows == records[0]["chains"]
    assert list(units(out)) == []


def _simulated(out: Path, count: int) -> Job:
    """A job of so many units that nobody needs to do."""
    job = Job(str(out), ModelIdentity(None, "m", "e", "000001", "c"), JobOptions(), ("none",)).begin()
    table = Units.of(Unit("files", (f"{number}.pdb",)) for number in range(count))
    (out / "units.parquet").write_bytes(table.to_parquet())
    return job


def _record(number: int, **fields: Any) -> Record:
    hits = np.zeros(4, np.int64)
    hits[number % 4] = number
    name = unit_id(number)
    part = part_name(name, "one")
    return Record(name, "one", part, structures=1, residues=number, framed=number, hits=pack_hits(hits), **fields)


def test_shards_are_summed_up_as_they_are_completed(tmp_path: Path) -> None:
    total = SHARD + 3
    job, files = _simulated(tmp_path / "out", total), open_output(str(tmp_path / "out"))
    out = tmp_path / "out"
    for number in range(total):
        fields = {"failures": {"Killed": 1}} if number == 7 else {}
        record = _record(number, failures_file=failures_name(unit_id(7), "one") if fields else "", **fields)
        for path, content in ((out / record.part, b"part"), (out / name_of(record.unit), _json(record))):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (out / "failures/0000").mkdir(parents=True)
    with (out / failures_name(unit_id(7), "one")).open("wb") as stream:
        write_failures(stream, [Failure("7.pdb", "Killed", "too long")], unit_id(7))
    done = np.ones(total, bool)
    done[[5, SHARD + 2]] = False
    (out / "parts/0000/000.lost.parquet").write_bytes(b"lost")
    with in_parallel() as executor:
        tracker = Tracker(files, done, executor)
        tracker.add(_record(5))
        assert [path.name for path in (out / "summaries").glob("*.json")] == ["0000.json"]
        assert not (out / "parts/0000/000.lost.parquet").exists()
        assert recorded(files, total, executor).all()
        (out / name_of(unit_id(5))).unlink()  # its summary has it
        assert recorded(files, total, executor).all()
        summary = finish(job.out)
        assert (summary.units, summary.structures, summary.residues) == (total, total, sum(range(total)))
        assert summary.hits.tolist() == [sum(range(first, total, 4)) for first in range(4)]
        (failure,) = parquet.read_table(out / "failures.parquet").to_pylist()
        assert failure == {"unit": "0000/007", "source": "7.pdb", "kind": "Killed", "reason": "too long"}
        assert reopen(files, total, executor) == 1
        assert not (out / "DONE").exists()
        assert np.flatnonzero(~recorded(files, total, executor)).tolist() == [5, 7]


def _json(record: Record) -> bytes:
    return json.dumps(record.row()).encode()


def test_numbers_of_units() -> None:
    for number in (0, SHARD - 1, SHARD, 12_345, 10_000 * SHARD):
        assert unit_number(unit_id(number)) == number
    for wrong in ("", "0000", "1/2", "0000/0001", "0000/-01"):
        with pytest.raises(ValueError, match=r"is not the id|invalid literal"):
            unit_number(wrong)


def test_tables_of_units() -> None:
    some = [Unit("files", ("a", "b"), structures=2), Unit("tar", ("c",), 512, 1024), Unit("other", ("d",), detail="{}")]
    table = Units.from_parquet(Units.of(some).to_parquet())
    assert [unit.row() for unit in table] == [{**unit.row(), "id": unit_id(number)} for number, unit in enumerate(some)]
    assert table.select([2, 1])[0].id == "0000/002"
    assert list(table.select([])) == []
    assert table[-1].kind == "other"


def test_hits_are_packed() -> None:
    hits = np.arange(4096) * 10**9
    assert unpack_hits(pack_hits(hits)).tolist() == hits.tolist()
    assert len(unpack_hits("")) == 0
