"""Residues without a frame are gaps in what is decoded, in the client and in all outputs of `foldmint detokenize`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from foldmint.v1 import tokenizer_pb2
from foldmint_client import ChainLabels, InvalidStructure, ServerError
from foldmint_client.cli.main import app

if TYPE_CHECKING:
    from client.conftest import Both, ScriptedServer

FRAMES = [True, False, True]
ROW: dict[str, Any] = {
    "source": "1abc.cif",
    "chain": "A",
    "residue_index": [1, 2, 3],
    "sequence": "GAS",
    "tokens": [1, 2, 3],
    "has_frame": FRAMES,
    "model": "scripted",
    "codebook_version": "000007",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def frames_sent(server: "ScriptedServer") -> list[list[bool]]:
    return [[*label.has_frame] for label in server.servicer.detokenize_requests[-1].chains]


def detokenize(server: "ScriptedServer", *arguments: str, rows: list[dict[str, Any]]) -> Result:
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    return CliRunner().invoke(app, ["detokenize", "--server", server.target, *arguments, "-"], input=lines)


def test_of_what_was_tokenized(client: "Both", server: "ScriptedServer") -> None:
    tokens = client.tokenize(b"7")
    (chain,) = client.detokenize(tokens).chains
    assert frames_sent(server) == [[True, True, False]]
    assert np.isnan(chain.plddt).tolist() == [False, False, True]
    (chain,) = client.detokenize(tokens, fill=True).chains
    assert frames_sent(server) == [[]]
    assert (chain.gaps, chain.coordinates[2, 0, 0]) == (0, 9)
    client.detokenize(tokens, labels=[ChainLabels("Q")])
    assert frames_sent(server) == [[True, True, False]]


def test_of_bare_tokens_by_their_labels(client: "Both", server: "ScriptedServer") -> None:
    client.detokenize([1, 2, 3], labels=[ChainLabels(has_frame=np.array(FRAMES))])
    assert frames_sent(server) == [FRAMES]
    client.detokenize([1, 2, 3], labels=[ChainLabels(has_frame=[True, True, True])])
    assert frames_sent(server) == [[]]
    with pytest.raises(InvalidStructure, match="has_frame"):
        client.detokenize([1, 2, 3], labels=[ChainLabels(has_frame=np.array([1, 0, 1]))])


def test_a_server_too_old_to_leave_gaps(client: "Both", server: "ScriptedServer") -> None:
    def old(request: tokenizer_pb2.DetokenizeRequest) -> tokenizer_pb2.DetokenizeResponse:
        chain = tokenizer_pb2.DecodedChain(
            chain="A", sequence="GAS", residue_index=[1, 2, 3], coordinates=bytes(108), plddt=[0.5, 0.5, 0.5]
        )
        return tokenizer_pb2.DetokenizeResponse(chains=[chain])

    server.servicer.detokenize = old
    tokens = client.tokenize(b"7")
    with pytest.raises(ServerError, match="too old to leave gaps"):
        client.detokenize(tokens)
    assert client.detokenize(tokens, fill=True).chains[0].gaps == 0


def test_json(server: "ScriptedServer") -> None:
    result = detokenize(server, "--format", "jsonl", rows=[ROW])
    (chain,) = json.loads(result.stdout)["chains"]
    assert chain["plddt"] == [0.5, None, 0.5]
    assert chain["coordinates"] == [[[1.0] * 3] * 3, [[None] * 3] * 3, [[3.0] * 3] * 3]
    assert result.exit_code == 0
    assert result.stderr == "gaps for 1 residue without a frame, in 1 structure; --fill decodes them anyway\n"


def test_filled(server: "ScriptedServer") -> None:
    result = detokenize(server, "--fill", "--format", "jsonl", rows=[ROW])
    assert json.loads(result.stdout)["chains"][0]["plddt"] == [0.5, 0.5, 0.5]
    assert result.stderr == ""


def test_npz_and_the_summary(server: "ScriptedServer") -> None:
    whole = ROW | {"source": "2", "has_frame": [True] * 3}
    nothing = ROW | {"source": "3", "has_frame": [False] * 3}
    result = detokenize(server, "--format", "npz", "--json", "--out", "out.npz", rows=[ROW, whole, nothing])
    with np.load("out.npz") as arrays:
        assert np.isnan(arrays["1abc.cif:A:plddt"]).tolist() == [False, True, False]
    assert json.loads(result.stdout)["gaps"] == 4
    assert "4 residues without a frame, in 2 structures, 1 of which has nothing else" in result.stderr
    quiet = detokenize(server, "-q", "--format", "npz", "--json", "--out", "out.npz", "--overwrite", rows=[ROW])
    assert quiet.stderr == ""


def test_files_that_do_not_tell_of_frames(server: "ScriptedServer") -> None:
    row = {key: value for key, value in ROW.items() if key != "has_frame"}
    assert detokenize(server, "--format", "jsonl", rows=[row]).stderr == ""
    assert frames_sent(server) == [[]]
