"""What the command writes with -o: Parquet and NPZ files, and outputs that are complete or not there."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from pyarrow import parquet

if TYPE_CHECKING:
    from client.conftest import ScriptedServer
from client.cli.command import tokenize


def test_parquet(server: "ScriptedServer", files: list[str]) -> None:
    assert tokenize(server, "--format", "parquet", "-o", "out.parquet", *files).exit_code == 0
    table = parquet.read_table("out.parquet")
    assert table.column("source").to_pylist() == files
    row = table.to_pylist()[1]
    assert row == {
        "source": "1.pdb",
        "chain": "A",
        "residue_index": [-1, 5, 5],
        "sequence": "GAS",
        "insertion_codes": "  A",
        "tokens": [1, 2, 3],
        "has_frame": [True, True, False],
        "distances": None,
        "assignment": None,
        "segment_starts": None,
        "first_frames": None,
        "composed_rmsd": None,
        "model": "scripted",
        "codebook_version": "000007",
        "left_out": [],
        "warnings": [],
    }
    assert str(table.schema.field("tokens").type) == "list<element: uint16>"
    metadata = parquet.read_schema("out.parquet").metadata
    assert metadata[b"model"] == b"scripted"
    assert metadata[b"codebook_version"] == b"000007"
    assert b"foldmint_version" in metadata
    tokenize(server, "--overwrite", "--format", "parquet", "--distances", "-o", "out.parquet", files[0])
    distances = parquet.read_table("out.parquet").column("distances").to_pylist()
    np.testing.assert_array_equal(np.array(distances[0], np.float32), np.array([0.1, 2.5, np.nan], np.float32))


def test_npz(server: "ScriptedServer", files: list[str]) -> None:
    absolute = str(Path("3.pdb").resolve())
    assert (
        tokenize(server, "--format", "npz", "--distances", "-o", "out.npz", absolute, "1.pdb", "1.pdb").exit_code == 0
    )
    with np.load("out.npz") as arrays:
        assert [key for key in arrays.files if key.endswith("A")] == [f"{absolute}:A", "1.pdb:A"]
        assert arrays["1.pdb:A"].dtype == np.uint16
        assert arrays[f"{absolute}:A"].tolist() == [3, 4, 5]
        assert arrays["1.pdb:A#2"].tolist() == [1, 2, 3]
        assert arrays["1.pdb:A:residue_index"].tolist() == [-1, 5, 5]
        assert arrays["1.pdb:A:has_frame"].tolist() == [True, True, False]
        assert np.isnan(arrays["1.pdb:A:distances"][2])


@pytest.mark.parametrize("form", ["jsonl", "parquet", "npz"])
def test_an_output_appears_when_it_is_complete(server: "ScriptedServer", files: list[str], form: str) -> None:
    before = {*files}
    out = Path("out")
    out.write_text("earlier")
    refused = tokenize(server, "--format", form, "-o", "out", *files)
    assert (refused.exit_code, server.servicer.requests) == (2, [])
    assert "out exists; --overwrite replaces it" in " ".join(refused.stderr.split())
    server.fail(grpc.StatusCode.INTERNAL)
    assert tokenize(server, "--overwrite", "--format", form, "-o", "out", *files).exit_code == 3
    assert out.read_text() == "earlier"
    Path("link").symlink_to("out")
    assert tokenize(server, "--overwrite", "--format", form, "-o", "link", *files).exit_code == 0
    assert Path("link").is_symlink()
    assert out.read_bytes() != b"earlier"
    assert {path.name for path in Path().iterdir()} == {*before, "out", "link"}
    if os.name == "posix":
        assert tokenize(server, "--format", form, "-o", os.devnull, *files).exit_code == 0
        assert Path(os.devnull).is_char_device()
