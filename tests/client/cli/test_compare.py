"""The command `foldmint compare`: what it aligns, counts, marks and exits with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from foldmint_client.analysis.code_distances import CodeVectors
from foldmint_client.analysis.comparison import Kind, compare_chains
from foldmint_client.cli.main import app
from foldmint_client.errors import InvalidOptions
from foldmint_client.models.responses import ChainTokens

if TYPE_CHECKING:
    from client.conftest import ScriptedServer

ROOT = Path(__file__).parents[3]
CODEBOOK = ROOT / "tokenizer/foldmint_tokenizer/default/codebooks/000001/codebook.safetensors"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("a.txt").write_text("1 2 3 4 5 9\n")
    Path("b.txt").write_text("1 2 7 4 5\n")
    return tmp_path


def compare(*arguments: str, server: str = "127.0.0.1:1") -> Result:
    return CliRunner().invoke(app, ["compare", "--attempts", "1", "--server", server, *arguments])


def row(chain: str, tokens: list[int], **more: Any) -> str:
    about = {"source": "x", "model": "m", "codebook_version": "000001", "sequence": "X" * len(tokens)}
    return json.dumps({**about, "chain": chain, "tokens": tokens, "residue_index": [*range(len(tokens))], **more})


def chain(tokens: list[int], frames: list[bool] | None = None) -> ChainTokens:
    index = np.arange(len(frames or tokens), dtype=np.int32)
    has_frame = np.array(frames or [True] * len(tokens))
    return ChainTokens("A", "X" * len(index), index, "", np.array(tokens, np.uint16), has_frame, None)


def test_two_files_of_tokens_without_a_server() -> None:
    result = compare("a.txt", "b.txt")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[2:5] == [["A", "1", "1", "2", "3", "4", "5", "9"], ["|"] * 4, ["B", "1", "1", "2", "7", "4", "5", "-"]]
    assert result.stdout.splitlines()[-2] == "4 of 5 tokens equal (80.0%); 1 different, 1 in gaps, 0 without a frame"


def test_json_with_distances() -> None:
    result = compare("--json", "--codebook", str(CODEBOOK), "--near", "1", "a.txt", "b.txt")
    answer = json.loads(result.stdout)
    (pair,) = answer["pairs"]
    assert (answer["share"], pair["share"], pair["equal"], pair["near"], pair["gap"]) == (0.8, 0.8, 4, 1, 1)
    assert pair["tokens_a"] == [1, 2, 3, 4, 5, 9]
    assert pair["tokens_b"] == [1, 2, 7, 4, 5, None]
    assert pair["kinds"] == ["equal", "equal", "near", "equal", "equal", "gap"]
    assert [value is not None and value > 0 for value in pair["distances"]] == [False, False, True, False, False, False]
    answer = json.loads(compare("--json", "--codebook", str(CODEBOOK), "--near", "0", "a.txt", "b.txt").stdout)
    assert (answer["pairs"][0]["near"], answer["pairs"][0]["different"]) == (0, 1)
    assert json.loads(compare("--json", "a.txt", "b.txt").stdout)["pairs"][0]["distances"] is None


def test_structures_are_tokenized(server: "ScriptedServer") -> None:
    Path("a.pdb").write_text("7")
    Path("b.pdb").write_text("8")
    result = compare("--json", "a.pdb", "b.pdb", server=server.target)
    (pair,) = json.loads(result.stdout)["pairs"]
    assert [token for token in pair["tokens_a"] if token is not None] == [7, 8, 9]
    # 7 of A has no partner, 8 is 8; what is last has no frame.
    assert pair["kinds"].count("equal") == 1
    assert pair["tokens_a"][1] == pair["tokens_b"][1] == 8
    assert [request.codebook_version for request in server.servicer.requests] == ["", "000007"]
    Path("old.jsonl").write_text(row("A", [7, 8, 9], codebook_version="000003", model="scripted"))
    compare("old.jsonl", "b.pdb", server=server.target)
    assert server.servicer.requests[-1].codebook_version == "000003"


def test_which_chains() -> None:
    Path("one").write_text("\n".join([row("A", [1, 2]), row("B", [3, 4]), row("C", [5])]))
    Path("two").write_text("\n".join([row("C", [5]), row("B", [3, 9])]))

    def pairs(*options: str) -> list[tuple[str, str, int]]:
        answer = json.loads(compare("--json", *options, "one", "two").stdout)
        return [(pair["chain_a"], pair["chain_b"], pair["equal"]) for pair in answer["pairs"]]

    assert pairs() == [("B", "B", 1), ("C", "C", 1)]
    assert pairs("--chain-a", "A", "--chain-b", "B") == [("A", "B", 0)]
    assert pairs("--chain-a", "A") == [("A", "C", 0)]
    assert "all chains: equal (66.7%)" in compare("one", "two").stdout
    result = compare("--chain-b", "Z", "one", "two")
    assert (result.exit_code, result.stderr) == (1, "error: two: no chain 'Z'; its chains: C, B\n")


def test_residues_without_a_frame_are_not_counted() -> None:
    Path("one").write_text(row("A", [1, 2, 3], has_frame=[True, False, True]))
    Path("two").write_text(row("A", [1, 2, 4]))
    result = compare("one", "two")
    assert "1 of 2 tokens equal (50.0%); 1 different, 0 in gaps, 1 without a frame" in result.stdout
    Path("two").write_text(row("A", [1, 2, 4], has_frame=[False] * 3))
    result = compare("one", "two")
    assert (result.exit_code, result.stderr) == (1, "error: there are no tokens to compare\n")


def test_special_tokens_are_taken_off() -> None:
    found = compare_chains(chain([4098, 1, 2, 4097], [True] * 2), chain([1, 2, 4097], [True] * 2))
    assert found.kinds.tolist() == [Kind.EQUAL] * 2
    assert compare_chains(chain([4098, 1], [True]), chain([1])).share == 1
    with pytest.raises(InvalidOptions, match="chain 'A' has 1 tokens and 3 residues"):
        compare_chains(chain([1], [True] * 3), chain([1]))
    with pytest.raises(InvalidOptions, match="has 2 codes, and there is a token 5"):
        compare_chains(chain([5]), chain([1]), CodeVectors(np.zeros((2, 3), np.float32)))


def test_near_codes_are_aligned() -> None:
    vectors = CodeVectors(np.array([[0.0], [0.1], [10.0]], np.float32))
    found = compare_chains(chain([2, 0]), chain([1]), vectors, 0.5)
    assert found.alignment.second.tolist() == [-1, 0]
    assert found.kinds.tolist() == [Kind.GAP, Kind.NEAR]
    assert found.distances is not None
    np.testing.assert_allclose(found.distances, [np.nan, 0.1], rtol=1e-6)


def test_what_cannot_be_compared() -> None:
    Path("one").write_text(row("A", [1]))
    Path("two").write_text(row("A", [1], model="other"))
    Path("many").write_text("1\n2\n")
    Path("large").write_text("70000\n")
    for arguments, code, reason in (
        (["one", "two"], 2, "tokens of different models"),
        (["one", "many"], 1, "contains 2 structures"),
        (["one", "large"], 1, "tokens out of range: 70000"),
        (["one", "none"], 1, "No such file"),
        (["--codebook", "one", "one", "one"], 2, "not a safetensors file"),
        (["none.pdb", "one"], 1, "No such file"),
        (["one"], 2, "B"),
    ):
        result = compare(*arguments)
        assert result.exit_code == code, result.output
        assert reason in " ".join(result.stderr.split())
    Path("two").write_text(row("A", [1], codebook_version="000002"))
    assert compare("one", "two").stderr == "note: the tokens are of codebook versions 000001 and 000002\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_color_on_a_terminal_only() -> None:
    import pty

    ours, theirs = pty.openpty()
    roots = os.pathsep.join(str(ROOT / name) for name in ("protos", "client"))
    environment = {**os.environ, "PYTHONPATH": roots, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "foldmint_client", "compare", "a.txt", "b.txt"]
    subprocess.run(command, stdout=theirs, env=environment, check=True)
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    green, red = "\x1b[32m", "\x1b[31m"
    assert f"{green}    4" in text
    assert f"{red}    7" in text
    assert "\x1b" not in compare("a.txt", "b.txt").stdout
