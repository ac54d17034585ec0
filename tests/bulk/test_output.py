"""A job's output: what is left is found, what no record names is removed, in a folder as in S3."""

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from foldmint_bulk import JobDiffers, OutputError, Unfinished, Units, create_job, finish, units
from foldmint_bulk.output.records import Record, create_record, name_of, pack_hits, read_record, unpack_hits
from foldmint_bulk.storage import open_output
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
    import numpy as np

    hits = np.arange(4096) * 10**9
    assert unpack_hits(pack_hits(hits)).tolist() == hits.tolist()
    assert len(unpack_hits("")) == 0
