"""Parquet files: files or coordinates in cells, in units of rows; broken rows do not end a unit."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from foldmint_bulk.errors import InvalidInput, UnreadableInput
from foldmint_bulk.inputs.base import InputOptions, Unreadable
from foldmint_bulk.inputs.registry import KINDS, kind_of
from foldmint_bulk.parsing.pool import ParserLimits, ParserPool
from foldmint_bulk.parsing.results import Parsed
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.reader import read_backbones
from helpers.bulk_inputs import contents, plan, read
from helpers.chains import RealChain


def write(path: Path, columns: dict[str, Any], rows: int = 10_000) -> Path:
    parquet.write_table(pa.table(columns), path, row_group_size=rows)
    return path


def only(structure: object) -> Backbone:
    assert isinstance(structure, tuple)
    (chain,) = structure
    assert isinstance(chain, Backbone)
    return chain


def test_files_in_cells_are_read_as_files(tmp_path: Path, data: Path) -> None:
    pdb, cif = (data / "1a8o.pdb").read_bytes(), (data / "1a8o.cif").read_bytes()
    gzipped = gzip.compress(cif)  # holds the time
    text = write(tmp_path / "text.parquet", {"entry_id": ["a", "b"], "pdb": [pdb.decode(), cif.decode()]})
    packed = write(tmp_path / "bytes.parquet", {"structure": pa.array([gzipped, pdb], pa.binary())})
    hub = write(tmp_path / "hub.parquet", {"id": [7, 8], "file": [{"bytes": pdb, "path": "x"}] * 2})
    assert contents(read(plan("parquet", text, packed, hub))) == {
        f"{text}!a": pdb,
        f"{text}!b": cif,
        f"{packed}!0": gzipped,
        f"{packed}!1": pdb,
        f"{hub}!7": pdb,
        f"{hub}!8": pdb,
    }


def test_cells_are_parsed_as_files_are(tmp_path: Path, data: Path) -> None:
    cif = (data / "1a8o.cif").read_bytes()
    path = write(tmp_path / "set.parquet", {"id": ["good", "bad"], "mmcif": [gzip.compress(cif), b"nothing"]})
    options = InputOptions(format="mmcif")
    with ParserPool(1, ParserLimits(), "all") as pool:
        good, bad = pool.parse(iter(read(plan("parquet", path), options)), "unit")
    assert isinstance(good, Parsed)
    (chain,), (expected,) = good.content.chains, read_backbones(data / "1a8o.cif")
    assert chain.sequence == expected.sequence
    assert np.array_equal(chain.coordinates, expected.coordinates, equal_nan=True)
    assert not isinstance(bad, Parsed)
    assert bad.source == f"{path}!bad"


def test_sets_of_the_maintenance_commands(tmp_path: Path, data: Path, chains: list[RealChain]) -> None:
    found = contents(read(plan("parquet", data / "chains.parquet")))
    assert [*found] == [f"{data / 'chains.parquet'}!{chain.id}" for chain in chains]
    for content, chain in zip(found.values(), chains, strict=True):
        own = only(content)
        assert (own.chain, own.sequence) == ("A", chain.sequence)
        assert own.residue_index.tolist() == chain.residue_index.tolist()
        assert np.array_equal(own.coordinates, chain.coordinates, equal_nan=True)


@pytest.mark.parametrize("shape", ["nested", "atoms", "struct", "fixed"])
def test_shapes_of_coordinates(tmp_path: Path, chains: list[RealChain], shape: str) -> None:
    some = chains[:3]
    by_atom = {
        name: [chain.coordinates[:, place].tolist() for chain in some] for place, name in enumerate(("N", "CA", "C"))
    }
    columns: dict[str, Any]
    if shape == "nested":
        columns = {"coords": [chain.coordinates.tolist() for chain in some]}
    elif shape == "fixed":
        kind = pa.list_(pa.list_(pa.list_(pa.float32(), 3), 3))
        columns = {"coords": pa.array([chain.coordinates.tolist() for chain in some], kind)}
    elif shape == "atoms":
        columns = dict(by_atom)
    else:
        columns = {"coords": [{name: values[row] for name, values in by_atom.items()} for row in range(3)]}
    path = write(tmp_path / "set.parquet", {"name": [chain.id for chain in some], "chain_id": ["B"] * 3, **columns})
    found = contents(read(plan("parquet", path)))
    for chain in some:
        own = only(found[f"{path}!{chain.id}"])
        assert own.chain == "B"
        assert own.sequence == "X" * len(chain.coordinates)
        assert own.residue_index.tolist() == [*range(1, len(own) + 1)]
        assert np.array_equal(own.coordinates, chain.coordinates, equal_nan=True)


def test_units_follow_row_groups_and_divide_large_ones(tmp_path: Path) -> None:
    texts = [f"structure {row}" for row in range(47)]
    path = tmp_path / "set.parquet"
    schema = pa.schema([("text", pa.string())])
    with parquet.ParquetWriter(path, schema) as writer:
        begin = 0
        for size in (4, 5, 3, 25, 2, 8):
            writer.write_table(pa.table({"text": texts[begin : begin + size]}, schema))
            begin += size
    units = plan("parquet", path, structures=10)
    assert [(unit.start, unit.stop) for unit in units] == [(0, 9), (9, 12), (12, 22), (22, 32), (32, 37), (37, 47)]
    assert [unit.structures for unit in units] == [9, 3, 10, 10, 5, 10]
    assert contents(read(units)) == {f"{path}!{row}": text.encode() for row, text in enumerate(texts)}


def test_broken_rows_are_failures_with_their_numbers(tmp_path: Path) -> None:
    good = np.arange(18.0).tolist()
    rows = [good, None, good[:-1], [], [None, *good[1:]], [1e7, *good[1:]]]
    path = write(tmp_path / "set.parquet", {"id": [None, *"abcde"], "coordinates": rows})
    found = contents(read(plan("parquet", path)))
    assert only(found[f"{path}!0"]).coordinates.ravel().tolist() == good
    assert np.isnan(only(found[f"{path}!d"]).coordinates[0, 0, 0])
    reasons = {source[-1]: content.reason for source, content in found.items() if isinstance(content, Unreadable)}
    assert reasons["a"] == "row 1: the column 'coordinates' is null"
    assert reasons["b"] == "row 2: the column 'coordinates' has 17 numbers, not 9 a residue"
    assert "row 3: " in reasons["c"]
    assert "row 5: " in reasons["e"]
    assert "1e+07 is beyond" in reasons["e"]


def test_columns_that_do_not_fit_are_told_with_those_there_are(tmp_path: Path) -> None:
    one = write(tmp_path / "one.parquet", {"key": ["a"], "protein": ["ATOM"], "size": [1]})
    two = write(tmp_path / "two.parquet", {"pdb": ["a"], "cif": ["b"]})
    for path, given, message in (
        (one, InputOptions(), "name it by --structure-column; there are: key .string., protein .string., size .int64."),
        (one, InputOptions(structure_column="pdb"), r"no column 'pdb' \(--structure-column\); the columns are: key"),
        (one, InputOptions(structure_column="size"), "'size', as --structure-column wants it, has neither text"),
        (one, InputOptions(id_column="x", structure_column="protein"), r"no column 'x' \(--id-column\)"),
        (two, InputOptions(), "several columns may have structures: pdb, cif"),
    ):
        with pytest.raises(InvalidInput, match=message):
            KINDS["parquet"].check(str(path), given)
        units = plan("parquet", path, options=given)
        with pytest.raises(UnreadableInput, match=message):
            read(units, given)
    chosen = InputOptions(id_column="key", structure_column="protein")
    KINDS["parquet"].check(str(one), chosen)
    assert contents(read(plan("parquet", one, options=chosen), chosen)) == {f"{one}!a": b"ATOM"}


def test_a_damaged_file_is_a_unit_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    path.write_bytes(b"PAR1 nothing")
    assert kind_of(str(path)) is KINDS["parquet"]
    KINDS["parquet"].check(str(path), InputOptions())
    (unit,) = plan("parquet", path)
    with pytest.raises(UnreadableInput, match=r"set\.parquet"):
        read([unit])


def test_a_file_that_was_cut_since_it_was_planned(tmp_path: Path) -> None:
    path = write(tmp_path / "set.parquet", {"text": ["a"] * 5})
    units = plan("parquet", path)
    write(path, {"text": ["a"] * 4})
    with pytest.raises(UnreadableInput, match="it has 4 rows, 5 when the job was planned"):
        read(units)
