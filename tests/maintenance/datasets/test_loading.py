"""Structure files and folders of them, turned into sets."""

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import gemmi
import numpy as np
import pytest
from numpy.typing import NDArray

from foldmint_maintenance.datasets.loading import Digest, IngestConfig, ingest, read_set
from foldmint_maintenance.datasets.records import Record, read_parquet
from foldmint_maintenance.errors import InvalidSet

Text = Callable[[dict[str, NDArray[np.float32]]], str]


@pytest.fixture
def folder(tmp_path: Path, records: list[Record], pdb_text: Text) -> Path:
    """Two chains in PDB, one in gzipped mmCIF below, a short one, and a file that is not a structure."""
    folder = tmp_path / "structures"
    (folder / "below").mkdir(parents=True)
    (folder / "two.pdb").write_text(pdb_text({"A": records[0].coordinates, "B": records[1].coordinates}))
    structure = gemmi.read_pdb_string(pdb_text({"C": records[2].coordinates}))
    structure.setup_entities()
    cif = structure.make_mmcif_document().as_string()
    (folder / "below" / "one.CIF.gz").write_bytes(gzip.compress(cif.encode()))
    (folder / "short.ent").write_text(pdb_text({"A": records[3].coordinates[:10]}))
    (folder / "broken.cif").write_text("data_x\nloop_\n_a")
    (folder / "notes.txt").write_text("no structure")
    return folder


def test_a_folder_gives_every_chain_and_tells_what_it_passed_over(folder: Path, records: list[Record]) -> None:
    passed: list[tuple[Path, str]] = []
    found = {record.id: record for record in read_set(folder, lambda path, why: passed.append((path, why)))}
    assert sorted(found) == ["one_C", "short_A", "two_A", "two_B"]
    assert [path.name for path, _ in passed] == ["broken.cif"]
    assert passed[0][1].count("\n") == 0
    np.testing.assert_allclose(found["two_B"].coordinates, records[1].coordinates, atol=1e-3)
    np.testing.assert_allclose(found["one_C"].coordinates, records[2].coordinates, atol=1e-3)
    assert found["one_C"].residue_index.tolist() == records[2].residue_index.tolist()


def test_a_single_file_that_cannot_be_read_raises(folder: Path) -> None:
    with pytest.raises(InvalidSet, match=r"broken\.cif"):
        list(read_set(folder / "broken.cif"))
    with pytest.raises(InvalidSet, match=r"broken\.cif"):
        list(read_set(folder))


def test_parquet_and_packed_sets_are_known_by_their_names(parquet: Path, tmp_path: Path) -> None:
    assert len(list(read_set(parquet))) == 6
    with lzma.open(tmp_path / "a.tsv.xz", "wt") as file:
        file.write("id\tlength\tfirst_residue\tsequence\nx\t1\t5\tA\n")
    with lzma.open(tmp_path / "a.xyz.xz", "wb") as file:
        file.write(bytes(18))
    (record,) = read_set(tmp_path / "a.tsv.xz")
    assert (record.id, record.residue_index.tolist()) == ("x", [5])


def test_what_is_no_set_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InvalidSet, match="is not a Parquet file"):
        read_set(folder / "notes.txt")
    with pytest.raises(FileNotFoundError, match="there is no"):
        read_set(tmp_path / "absent.parquet")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InvalidSet, match="holds no structure files"):
        list(read_set(tmp_path / "nothing"))


def test_ingest_writes_the_chains_that_fit_and_counts_the_rest(folder: Path, tmp_path: Path, pdb_text: Text) -> None:
    bare = np.full((40, 3, 3), np.nan, np.float32)
    bare[:, 1] = np.arange(40)[:, None] * [3.8, 0, 0]
    lines = [
        line
        for line in pdb_text({"A": np.nan_to_num(bare)}).splitlines()
        if line[12:16] == " CA " or "ATOM" not in line
    ]
    (folder / "traces.pdb").write_text("\n".join(lines))
    out = tmp_path / "sets" / "out.parquet"
    done = ingest(folder, out, IngestConfig(min_residues=30, max_residues=36))
    kept = {record.id: record for record in read_parquet(out)}
    assert sorted(kept) == ["two_A", "two_B"]
    assert (done.chains, done.residues, done.unreadable_files) == (2, 65, 1)
    assert done.skipped == {"fewer than 30 residues": 1, "more than 36 residues": 2}
    assert ingest(folder, out).skipped == {"fewer than 30 residues": 1, "no residue with N, CA and C": 1}


def test_ingest_that_keeps_nothing_writes_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(InvalidSet, match="4 with fewer than 900 residues"):
        ingest(folder, out, IngestConfig(min_residues=900))
    assert not out.exists()


@pytest.mark.parametrize(("least", "most"), [(0, None), (30, 29)])
def test_limits_that_make_no_sense_are_refused(least: int, most: int | None) -> None:
    with pytest.raises(ValueError, match="residues must"):
        IngestConfig(least, most)


def test_the_digest_tells_sets_apart_and_does_not_care_for_the_container(records: list[Record], parquet: Path) -> None:
    def digest(some: object) -> str:
        digest = Digest()
        list(digest.through(some))  # type: ignore[arg-type]
        return digest.sha256()

    moved = Record("r0_A", records[0].sequence, records[0].residue_index, records[0].coordinates + np.float32(1))
    assert digest(records) == digest(read_parquet(parquet))
    assert digest(records) != digest([moved, *records[1:]])
    assert digest(records) != digest(records[::-1])
