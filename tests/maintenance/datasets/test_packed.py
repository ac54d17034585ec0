"""The packed corpus, from a file written here after its description."""

import lzma
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from foldmint_maintenance.datasets.packed import read_packed
from foldmint_maintenance.errors import InvalidSet


def _write(folder: Path, chains: list[NDArray[np.int32]], rows: list[str]) -> Path:
    """chains: (residues, 3, 3), hundredths of an Å."""
    table = folder / "tiny.tsv.xz"
    header = "id\tlength\tfirst_residue\tcluster30\tscope\tsequence\tdssp"
    with lzma.open(table, "wt", encoding="ascii") as file:
        file.write("\n".join([header, *rows]) + "\n")
    steps = np.concatenate([np.diff(chain, axis=0, prepend=0) for chain in chains]).astype("<i2")
    planes = steps.transpose(1, 2, 0).copy().view(np.uint8).reshape(3, 3, -1, 2).transpose(3, 0, 1, 2)
    with lzma.open(folder / "tiny.xyz.xz", "wb") as file:
        file.write(planes.tobytes())
    return table


@pytest.fixture
def chains() -> list[NDArray[np.int32]]:
    random = np.random.default_rng(0)
    return [random.integers(-900, 900, (length, 3, 3), dtype=np.int32) for length in (3, 2)]


ROWS = ["1abc_A\t3\t7\tc\t\tACD\tHHC", "2xyz_B\t2\t-1\tc\ta.1\tEF\t"]


def test_what_was_packed_is_read(tmp_path: Path, chains: list[NDArray[np.int32]]) -> None:
    first, second = read_packed(_write(tmp_path, chains, ROWS))
    assert (first.id, first.sequence, first.dssp) == ("1abc_A", "ACD", "HHC")
    assert first.residue_index.tolist() == [7, 8, 9]
    assert first.coordinates == pytest.approx(chains[0] / 100, abs=1e-5)
    assert (second.id, second.dssp, second.residue_index.tolist()) == ("2xyz_B", None, [-1, 0])
    assert second.coordinates == pytest.approx(chains[1] / 100, abs=1e-5)


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path, chains: list[NDArray[np.int32]]) -> None:
    table = _write(tmp_path, chains[:1], ROWS)
    with pytest.raises(InvalidSet, match="lists 5 residues, its coordinates hold 3"):
        list(read_packed(table))


@pytest.mark.parametrize("row", ["1abc_A\t3", "1abc_A\tthree\t7\tc\t\tACD\tHHC"])
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, chains: list[NDArray[np.int32]], row: str) -> None:
    table = _write(tmp_path, chains, [ROWS[1], row])
    with pytest.raises(InvalidSet, match="line 3"):
        list(read_packed(table))


def test_a_damaged_file_is_refused(tmp_path: Path, chains: list[NDArray[np.int32]]) -> None:
    table = _write(tmp_path, chains, ROWS)
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(InvalidSet, match="damaged"):
        list(read_packed(table))
