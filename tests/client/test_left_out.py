"""What was left out of a file, and what it warns of, from the server's answer to every output of the command."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from foldmint.v1 import tokenizer_pb2
from foldmint_client import ChainTokens, InvalidOptions, LeftOut, LeftOutKind, ServerError, Tokens
from foldmint_client.cli.main import app
from foldmint_client.io.token_readers import read
from foldmint_client.io.token_writers import OutputFormat, opened

if TYPE_CHECKING:
    from client.conftest import Both, ScriptedServer

HETATM = LeftOut(LeftOutKind.HETATM, "A", 4, ("MSE", "SEP"), of_protein=True)
WATER = LeftOut(LeftOutKind.WATER, "W", 90, ("HOH",), of_protein=False)
OTHER = LeftOut(LeftOutKind.OTHER, "", 1, (), of_protein=True)
ROWS = [
    {"kind": "hetatm", "chain": "A", "residues": 4, "names": ["MSE", "SEP"]},
    {"kind": "water", "chain": "W", "residues": 90, "names": ["HOH"]},
    {"kind": "other", "chain": "", "residues": 1, "names": []},
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("lossy.pdb").write_text("lossy")
    Path("1.pdb").write_text("1")


def tokenize(server: "ScriptedServer", *arguments: str) -> Result:
    return CliRunner().invoke(app, ["tokenize", "--server", server.target, *arguments])


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_of_an_answer(client: "Both") -> None:
    tokens = client.tokenize(b"lossy")
    assert (tokens.left_out, tokens.warnings) == ((HETATM, WATER, OTHER), ("a warning",))
    tokens = client.tokenize(b"1")
    assert (tokens.left_out, tokens.warnings) == ((), ())


def test_of_a_stream(client: "Both") -> None:
    (_, one), (_, other) = client.many([b"lossy", b"1"])
    assert (one.left_out, one.warnings, other.left_out) == ((HETATM, WATER, OTHER), ("a warning",), ())


def test_how_to_read_goes_with_the_request(client: "Both", server: "ScriptedServer") -> None:
    client.tokenize(b"1", format="bcif", reading="esm", min_plddt=70, assembly="2", renumber=True)
    sent = server.servicer.requests[-1].file
    assert (sent.format, sent.reading) == (tokenizer_pb2.STRUCTURE_FORMAT_BCIF, tokenizer_pb2.READING_ESM)
    assert (sent.min_plddt, sent.assembly, sent.renumber) == (70, "2", True)
    client.many([b"1"], reading="all")
    assert server.servicer.requests[-1].file.reading == tokenizer_pb2.READING_ALL


@pytest.mark.parametrize("options", [{"reading": "esm"}, {"min_plddt": 0.0}, {"assembly": "1"}, {"renumber": True}])
def test_a_server_too_old_to_hear_it(
    client: "Both", server: "ScriptedServer", options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def old(requests: Any, context: Any) -> Any:
        for request in requests:
            answer = server.answer(request)
            answer.response.ClearField("reading")
            yield answer

    monkeypatch.setattr(server.servicer, "stream", old)
    ((_, found),) = client.many([b"1"], **options)
    assert isinstance(found, ServerError)
    assert "too old" in str(found)
    ((_, found),) = client.many([b"1"])
    assert isinstance(found, Tokens)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"reading": "ESM"}, "reading"),
        ({"min_plddt": 100.5}, "min_plddt"),
        ({"min_plddt": float("nan")}, "min_plddt"),
    ],
)
def test_wishes_that_cannot_be(client: "Both", options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidOptions, match=reason):
        client.tokenize(b"1", **options)


def test_json_lines(server: "ScriptedServer") -> None:
    result = tokenize(server, "lossy.pdb", "1.pdb")
    lossy, other = rows(result.stdout)
    assert (lossy["left_out"], lossy["warnings"]) == (ROWS, ["a warning"])
    assert (other["left_out"], other["warnings"]) == ([], [])
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "left out of 1 structure: 4 residues (hetatm), 1 residue (other); see `left_out` in the output",
        "warning: lossy.pdb: a warning",
    ]
    assert tokenize(server, "--quiet", "lossy.pdb").stderr == ""


def test_the_summary_counts_kinds(server: "ScriptedServer") -> None:
    result = tokenize(server, "--json", "-o", "out.jsonl", "lossy.pdb", "1.pdb", "lossy.pdb")
    summary = json.loads(result.stdout)
    assert summary["left_out"] == {"water": 180, "hetatm": 8, "other": 2}
    assert summary["warnings"] == 2
    assert result.stderr.splitlines()[-1].endswith("a warning, and 1 more; see `warnings` in the output")


def test_parquet(server: "ScriptedServer") -> None:
    assert tokenize(server, "--format", "parquet", "-o", "out.parquet", "lossy.pdb", "1.pdb").exit_code == 0
    lossy, other = parquet.read_table("out.parquet").to_pylist()
    assert (lossy["left_out"], lossy["warnings"]) == (ROWS, ["a warning"])
    assert (other["left_out"], other["warnings"]) == ([], [])


def test_npz(server: "ScriptedServer") -> None:
    assert tokenize(server, "--format", "npz", "-o", "out.npz", "lossy.pdb", "1.pdb").exit_code == 0
    with np.load("out.npz") as arrays:
        left_out = arrays["lossy.pdb:A:left_out"]
        assert left_out.tolist() == [("hetatm", "A", 4, "MSE SEP"), ("water", "W", 90, "HOH"), ("other", "", 1, "")]
        assert left_out.dtype.names == ("kind", "chain", "residues", "names")
        assert arrays["lossy.pdb:A:warnings"].tolist() == ["a warning"]
        assert not any(name.startswith("1.pdb:A:left_out") for name in arrays.files)


def chain(name: str) -> ChainTokens:
    index = np.arange(1, 3, dtype=np.int32)
    return ChainTokens(name, "GG", index, "", index.astype(np.uint16), np.ones(2, np.bool_), None)


def test_each_chain_has_its_own(tmp_path: Path) -> None:
    of_b = LeftOut(LeftOutKind.CAP, "B", 1, ("NME",), of_protein=False)
    model = LeftOut(LeftOutKind.OTHER_MODEL, "", 2, ("2", "3"), of_protein=True)
    tokens = Tokens("m", "v", (chain("A"), chain("B"), chain("B")), (of_b, model, WATER), ("first", "second"))
    with opened(OutputFormat.JSONL, tmp_path / "out") as writer:
        writer.write("x.pdb", tokens)
    found = rows((tmp_path / "out").read_text())
    assert [row["left_out"] for row in found] == [[model.row(), WATER.row()], [of_b.row()], []]
    assert [row["warnings"] for row in found] == [["first", "second"], [], []]


@pytest.mark.parametrize("form", OutputFormat)
def test_outputs_are_read_back(server: "ScriptedServer", form: OutputFormat) -> None:
    assert tokenize(server, "--format", form, "-o", "out", "lossy.pdb").exit_code == 0
    (found,) = read("out")
    assert isinstance(found.tokens, Tokens)
    assert [one.tokens.tolist() for one in found.tokens.chains] == [[5, 6, 7]]
