"""Sets in Parquet, and prepared in memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foldmint_maintenance.datasets.records import PreparedSet, Record, prepared, read_parquet, write_parquet
from foldmint_maintenance.errors import InvalidSet


def test_what_was_written_is_read(records: list[Record], tmp_path: Path) -> None:
    bare = Record("bare", "AC", np.array([-3, 9]), np.full((2, 3, 3), np.nan, np.float32))
    path = tmp_path / "set.parquet"
    assert write_parquet([*records, bare], path, rows_per_group=4) == (7, sum(len(r.sequence) for r in records) + 2)
    back = list(read_parquet(path))
    for before, after in zip([*records, bare], back, strict=True):
        assert (before.id, before.sequence, before.dssp) == (after.id, after.sequence, after.dssp)
        np.testing.assert_array_equal(before.residue_index, after.residue_index)
        np.testing.assert_array_equal(before.coordinates, after.coordinates)
    assert not list(tmp_path.glob("*.part"))


def test_a_set_that_fails_on_the_way_leaves_no_file(records: list[Record], tmp_path: Path) -> None:
    def failing() -> object:
        yield records[0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_parquet(failing(), tmp_path / "set.parquet")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_set_without_dssp_is_read(parquet: Path, tmp_path: Path) -> None:
    path = tmp_path / "bare.parquet"
    pq.write_table(pq.read_table(parquet).drop_columns(["dssp"]), path)
    assert {record.dssp for record in read_parquet(path)} == {None}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"id": ["a"], "sequence": ["A"]}, "lacks coordinates, residue_index"),
        ({"id": ["a"], "sequence": ["A"], "residue_index": [[1]], "coordinates": [[0.0] * 8]}, "reshape"),
        ({"id": ["a"], "sequence": ["AA"], "residue_index": [[1]], "coordinates": [[0.0] * 9]}, "a: residue_index"),
        ({"id": ["a"], "sequence": ["A"], "residue_index": [["x"]], "coordinates": [[0.0] * 9]}, "Parquet|set|x"),
        ({"id": [None], "sequence": ["A"], "residue_index": [[1]], "coordinates": [[0.0] * 9]}, "null"),
        (
            {"id": ["a"], "sequence": ["A"], "residue_index": [[1]], "coordinates": [[0.0] * 9], "dssp": ["HH"]},
            "DSSP",
        ),
    ],
)
def test_a_set_that_does_not_fit_is_refused(tmp_path: Path, columns: dict[str, list[object]], reason: str) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InvalidSet, match=reason):
        list(read_parquet(path))


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    path.write_text("no table")
    with pytest.raises(InvalidSet, match="cannot be read"):
        list(read_parquet(path))


def test_a_prepared_set_has_the_rows_of_its_chains(data: PreparedSet, records: list[Record]) -> None:
    alone = prepared(records[2:3])
    start = int((data.chain[data.shape.queries] < 2).sum())
    together = data.rows(slice(start, start + len(alone)))
    expected = alone.rows(slice(None))
    np.testing.assert_allclose(together.rotation, expected.rotation, atol=1e-5)
    np.testing.assert_allclose(together.origin, expected.origin, atol=1e-5)
    np.testing.assert_array_equal(together.offset, expected.offset)
    np.testing.assert_array_equal(together.exists, expected.exists)
    assert bytes(data.dssp[data.chain == 2]).decode() == records[2].dssp


def test_a_set_without_a_frame_is_refused() -> None:
    empty = Record("a", "A", np.array([1]), np.full((1, 3, 3), np.nan, np.float32))
    with pytest.raises(InvalidSet, match="no residue"):
        prepared([empty])
    with pytest.raises(InvalidSet, match="no chain"):
        prepared([])
