"""Reading of tokens: all that `foldmint tokenize` writes, and token ids that others wrote."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from foldmint_client import ChainTokens, Tokens, UnreadableInput
from foldmint_client.io.token_readers import Found, read
from foldmint_client.io.token_writers import OutputFormat, opened

FORMS = list(OutputFormat)


def chain(name: str, *tokens: int, special: int = 0) -> ChainTokens:
    residues = len(tokens) - special
    index = np.arange(5, 5 + residues, dtype=np.int32)
    array = np.array(tokens, np.uint16)
    return ChainTokens(name, "G" * residues, index, "", array, np.ones(residues, np.bool_), None)


def structure(*chains: ChainTokens, version: str = "000001") -> Tokens:
    return Tokens("model", version, chains)


def written(form: OutputFormat, path: Path, *structures: tuple[str, Tokens]) -> str:
    with opened(form, path) as writer:
        for source, tokens in structures:
            writer.write(source, tokens)
    return str(path)


def shape(found: Found) -> tuple[str, list[tuple[str, list[int], list[int]]]]:
    """Source, and name, tokens and numbers of each chain."""
    assert isinstance(found.tokens, Tokens)
    chains = found.tokens.chains
    return found.name, [(one.chain, one.tokens.tolist(), one.residue_index.tolist()) for one in chains]


def ids(found: Found) -> list[int]:
    assert isinstance(found.tokens, np.ndarray)
    tokens: list[int] = found.tokens.tolist()
    return tokens


def problem(found: Found) -> str:
    assert isinstance(found.tokens, UnreadableInput)
    return str(found.tokens)


@pytest.mark.parametrize("form", FORMS)
def test_what_was_written(form: OutputFormat, tmp_path: Path) -> None:
    first = structure(chain("A", 4098, 1, 2, special=1), chain("B", 4100, 3, 4097, special=2))
    path = written(
        form, tmp_path / "x", ("a.pdb", first), ("-", structure(chain("", 7))), ("c:d.cif", structure(chain("A", 8)))
    )
    found = list(read(path))
    assert [shape(one) for one in found] == [
        ("a.pdb", [("A", [4098, 1, 2], [5, 6]), ("B", [4100, 3, 4097], [5])]),
        ("-", [("", [7], [5])]),
        ("c:d.cif", [("A", [8], [5])]),
    ]
    told = ("", "") if form is OutputFormat.NPZ else ("model", "000001")  # npz tells of neither
    for one in found:
        assert (one.model, one.codebook_version) == told
        assert isinstance(one.tokens, Tokens)
        assert (one.tokens.model, one.tokens.codebook_version) == told
        assert one.tokens.chains[0].sequence == ("" if form is OutputFormat.NPZ else "G" * len(one.tokens.chains[0]))


@pytest.mark.parametrize("form", FORMS)
def test_each_chain_by_itself(form: OutputFormat, tmp_path: Path) -> None:
    path = written(form, tmp_path / "x", ("a.pdb", structure(chain("A", 1), chain("B", 2))))
    assert [shape(one) for one in read(path, each_chain=True)] == [
        ("a.pdb:A", [("A", [1], [5])]),
        ("a.pdb:B", [("B", [2], [5])]),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_source_twice_is_two_structures(form: OutputFormat, tmp_path: Path) -> None:
    one = structure(chain("A", 1), chain("B", 2))
    path = written(form, tmp_path / "x", ("a.pdb", one), ("a.pdb", one))
    assert [shape(found)[1] for found in read(path)] == [[("A", [1], [5]), ("B", [2], [5])]] * 2


def test_versions_are_not_mixed(tmp_path: Path) -> None:
    one, other = structure(chain("A", 1)), structure(chain("B", 2), version="000002")
    path = written(OutputFormat.JSONL, tmp_path / "x", ("a.pdb", one), ("a.pdb", other))
    assert [found.codebook_version for found in read(path)] == ["000001", "000002"]


def test_insertion_codes_are_kept(tmp_path: Path) -> None:
    tokens = Tokens(
        "m",
        "1",
        (
            ChainTokens(
                "A", "GG", np.array([5, 5], np.int32), " A", np.array([1, 2], np.uint16), np.ones(2, np.bool_), None
            ),
        ),
    )
    with opened(OutputFormat.JSONL, tmp_path / "x", insertion_codes=True) as writer:
        writer.write("a.pdb", tokens)
    (found,) = read(str(tmp_path / "x"))
    assert isinstance(found.tokens, Tokens)
    assert found.tokens.chains[0].insertion_codes == " A"


def test_token_ids_one_structure_a_line(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("4098 1 2 4100 3 4097\n\n4, 5,6\r\n7")
    assert [(found.name, ids(found)) for found in read(str(path))] == [
        (f"{path}:1", [4098, 1, 2, 4100, 3, 4097]),
        (f"{path}:3", [4, 5, 6]),
        (f"{path}:4", [7]),
    ]


def test_rows_without_numbers_are_structures_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"tokens": [1, 4100, 2], "codebook_version": "000003"}, {"source": "a", "tokens": [3]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read(str(path))
    assert (first.name, ids(first), first.codebook_version) == (f"{path}:1", [1, 4100, 2], "000003")
    assert (second.name, ids(second), second.codebook_version) == ("a", [3], "")
    np.savez(tmp_path / "x.npz", one=np.array([1, 4100, 2]), two=np.array([3], np.uint16))
    assert [(found.name, ids(found)) for found in read(str(tmp_path / "x.npz"))] == [
        ("one", [1, 4100, 2]),
        ("two", [3]),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_standard_input(form: OutputFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(form, tmp_path / "x", ("a.pdb", structure(chain("A", 1))), ("b.pdb", structure(chain("A", 2))))

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(Path(path).read_bytes())))
    assert [found.name for found in read("-")] == ["a.pdb", "b.pdb"]


def test_a_pipe_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    pipe = Pipe(b"1 2\n3\n" + b"4\n" * 100_000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
    found = read("-")
    assert ids(next(found)) == [1, 2]
    assert pipe.tell() < 20


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"tokens": [1, 2', "neither a row of tokens nor whole numbers"),
        ('{"source": "a"}', "'tokens' is missing"),
        ('{"tokens": [0.5]}', "'tokens' is not an array of integers"),
        ('{"tokens": [[1], [2]]}', "'tokens' is not an array of integers"),
        ('{"tokens": [1], "residue_index": [1], "sequence": 5}', "'sequence' is not text"),
        ('{"tokens": [70000], "residue_index": [1]}', "'tokens' has values from 70000 to 70000"),
        ('{"tokens": [1], "residue_index": [4294967296]}', "'residue_index' has values from"),
        ("1 2 x", "invalid literal"),
        ("[1, 2]", "invalid literal"),
        ("1 99999999999999999999", "too large"),
    ],
)
def test_a_bad_line_does_not_stop_the_rest(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "x"
    path.write_text(f"1 2\n{line}\n3 4\n")
    before, bad, after = read(str(path))
    assert (ids(before), ids(after)) == ([1, 2], [3, 4])
    assert bad.name == f"{path}:2"
    assert reason in problem(bad)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "blank").write_text("\n \n")
    (tmp_path / "zip").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "parquet").write_bytes(b"PAR1 and no more")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "floats.npz", a=np.array([0.5]), b=np.array([1]))
    whole = written(OutputFormat.PARQUET, tmp_path / "whole", ("a", structure(chain("A", 1))))
    (tmp_path / "half").write_bytes(Path(whole).read_bytes()[:-20])
    for name, reason in (
        ("none", "No such file"),
        (".", "Is a directory"),
        ("empty", "no tokens"),
        ("blank", "no tokens"),
        ("zip", "zip"),
        ("parquet", ""),
        ("half", ""),
        ("objects.npz", "allow_pickle"),
    ):
        (found,) = read(str(tmp_path / name))
        assert reason in problem(found)
    bad, good = read(str(tmp_path / "floats.npz"))
    assert "'tokens' is not an array of integers" in problem(bad)
    assert ids(good) == [1]


def test_frames_are_read(tmp_path: Path) -> None:
    row = '{"tokens": [1, 2], "residue_index": [1, 2], "has_frame": %s}\n'
    (tmp_path / "frames").write_text(row % "[true, false]" + row % "[true]" + row % "[1, 0]")
    first, *others = [*read(str(tmp_path / "frames"))]
    assert isinstance(first.tokens, Tokens)
    assert first.tokens.chains[0].has_frame.tolist() == [True, False]
    for found in others:
        assert isinstance(found.tokens, UnreadableInput)
        assert "'has_frame' is not an array of 2 booleans" in str(found.tokens)
