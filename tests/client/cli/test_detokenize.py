"""The command `foldmint detokenize`: what it reads, writes and exits with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from foldmint_client.cli.main import app
from foldmint_client.io.structure_writers import file_stem

if TYPE_CHECKING:
    from client.conftest import ScriptedServer

ROW: dict[str, object] = {
    "source": "in/1abc.cif.gz",
    "chain": "A",
    "residue_index": [5, 6],
    "sequence": "GA",
    "tokens": [1, 2],
}
OTHER: dict[str, object] = {**ROW, "chain": "B", "tokens": [3, 4]}
VERSION = {"model": "scripted", "codebook_version": "000007"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def lines(*rows: dict[str, object]) -> bytes:
    return "".join(json.dumps({**VERSION, **row}) + "\n" for row in rows).encode()


def run(server: "ScriptedServer", *arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["detokenize", "--server", server.target, *arguments], input=stdin)


def files(folder: str = "out") -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(Path(folder).iterdir()) if path.suffix != ".npy"}


def test_a_file_for_each_source(server: "ScriptedServer") -> None:
    Path("tokens.jsonl").write_bytes(lines(ROW, OTHER, {**ROW, "source": "2xyz.pdb", "tokens": [9, 8]}))
    result = run(server, "--in-flight", "1", "--out", "out/deep", "tokens.jsonl")
    assert (result.exit_code, result.output) == (0, "")
    assert files("out/deep") == {"1abc.pdb": "format 1: [1, 2, 3, 4]\n", "2xyz.pdb": "format 1: [9, 8]\n"}
    first = server.servicer.detokenize_requests[0]
    assert [(label.chain, label.sequence) for label in first.chains] == [("A", "GA"), ("B", "GA")]
    assert [list(label.residue_index) for label in first.chains] == [[5, 6], [5, 6]]
    assert (first.model, first.codebook_version) == ("scripted", "000007")


def test_each_chain_and_names_that_meet(server: "ScriptedServer") -> None:
    rows = lines(ROW, OTHER, {**ROW, "source": "other/1ABC.ent"}, {**ROW, "source": "1abc.pdb", "chain": "a"})
    result = run(server, "--each-chain", "--format", "mmcif", "--out", "out", "-", stdin=rows)
    assert (result.exit_code, result.output) == (0, "")
    assert files() == {
        "1abc_A.cif": "format 2: [1, 2]\n",
        "1abc_B.cif": "format 2: [3, 4]\n",
        "1ABC_A-2.cif": "format 2: [1, 2]\n",
        "1abc_a-3.cif": "format 2: [1, 2]\n",
    }


def test_one_structure_to_a_file_or_standard_output(server: "ScriptedServer") -> None:
    for arguments in ([], ["--out", "-"]):
        result = run(server, *arguments, "-", stdin=lines(ROW, OTHER))
        assert (result.exit_code, result.stdout) == (0, "format 1: [1, 2, 3, 4]\n")
    result = run(server, "--format", "mmcif", "--out", "a.cif", "-", stdin=lines(ROW))
    assert (result.exit_code, Path("a.cif").read_text()) == (0, "format 2: [1, 2]\n")
    for arguments in ([], ["--out", "b.pdb"]):
        result = run(server, *arguments, "-", stdin=lines(ROW, {**ROW, "source": "b"}))
        assert result.exit_code == 2
        assert "several structures need a folder" in result.stderr
    assert not Path("b.pdb").exists()
    assert len(server.servicer.detokenize_requests) == 3


def test_token_ids(server: "ScriptedServer") -> None:
    Path("ids.txt").write_text("4098 1 2 4100 3 4097\n5 6\n")
    assert run(server, "--out", "out", "ids.txt").exit_code == 0
    assert files() == {"ids_1.pdb": "format 1: [1, 2, 3]\n", "ids_2.pdb": "format 1: [5, 6]\n"}
    assert run(server, "-", stdin=b"7 8").stdout == "format 1: [7, 8]\n"


def test_files_that_are_there_are_kept(server: "ScriptedServer") -> None:
    Path("1abc.pdb").write_text("measured")
    rows = lines(ROW, {**ROW, "source": "2xyz.pdb"})
    result = run(server, "--out", ".", "-", stdin=rows)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "in/1abc.cif.gz: 1abc.pdb exists; --overwrite replaces it",
        "1 of 2 inputs have no structure",
        "  1 InvalidOptions: in/1abc.cif.gz",
    ]
    assert files(".") == {"1abc.pdb": "measured", "2xyz.pdb": "format 1: [1, 2]\n"}
    assert len(server.servicer.detokenize_requests) == 1
    assert run(server, "--overwrite", "--out", ".", "-", stdin=rows).exit_code == 0
    assert files(".")["1abc.pdb"] == "format 1: [1, 2]\n"


def test_json_lines(server: "ScriptedServer") -> None:
    result = run(server, "--format", "jsonl", "--pae", "-", stdin=lines(ROW, OTHER, {**ROW, "source": "b"}))
    assert result.exit_code == 0
    first, second = map(json.loads, result.stdout.splitlines())
    assert [*first] == ["source", "model", "codebook_version", "ptm", "chains", "pae"]
    assert (first["source"], first["codebook_version"], first["ptm"]) == ("in/1abc.cif.gz", "000007", 0.75)
    assert [chain["chain"] for chain in first["chains"]] == ["A", "B"]
    assert first["chains"][1] == {
        "chain": "B",
        "residue_index": [5, 6],
        "sequence": "GA",
        "plddt": [0.5, 0.5],
        "coordinates": [[[3.0] * 3] * 3, [[4.0] * 3] * 3],
    }
    assert first["pae"][3] == [12.0, 13.0, 14.0, 15.0]
    assert second["source"] == "b"
    assert not server.servicer.detokenize_requests[0].options.format
    assert run(server, "--format", "jsonl", "-o", "x.jsonl", "-", stdin=lines(ROW)).exit_code == 0
    assert "pae" not in json.loads(Path("x.jsonl").read_text())


def test_npz(server: "ScriptedServer") -> None:
    rows = lines(ROW, OTHER, {**ROW, "source": "b"}, {**ROW, "source": "b"})
    assert run(server, "--format", "npz", "--pae", "-o", "x.npz", "-", stdin=rows).exit_code == 0
    with np.load("x.npz") as arrays:
        assert arrays.files[:4] == [
            "in/1abc.cif.gz:A:coordinates",
            "in/1abc.cif.gz:A:plddt",
            "in/1abc.cif.gz:A:residue_index",
            "in/1abc.cif.gz:B:coordinates",
        ]
        assert arrays["in/1abc.cif.gz:B:coordinates"][:, 0, 0].tolist() == [3, 4]
        assert arrays["in/1abc.cif.gz:ptm"] == 0.75
        assert arrays["in/1abc.cif.gz:pae"].shape == (4, 4)
        assert arrays["b#2:A:residue_index"].tolist() == [5, 6]
        assert arrays["b#2:ptm"] == 0.75
    assert run(server, "--format", "npz", "--each-chain", "-o", "x.npz", "-", stdin=rows).exit_code == 2  # it exists
    again = run(server, "--overwrite", "--format", "npz", "--each-chain", "-o", "x.npz", "-", stdin=rows)
    assert again.exit_code == 0
    with np.load("x.npz") as arrays:
        assert {"in/1abc.cif.gz:A:ptm", "in/1abc.cif.gz:B:ptm", "b#2:A:ptm"} <= {*arrays.files}


def test_pae_beside_the_files(server: "ScriptedServer") -> None:
    assert run(server, "--pae", "--out", "out", "-", stdin=lines(ROW)).exit_code == 0
    assert np.load("out/1abc.pae.npy").tolist() == [[0, 1], [2, 3]]
    assert run(server, "--pae", "--out", "x.cif", "--format", "mmcif", "-", stdin=lines(ROW)).exit_code == 0
    assert np.load("x.pae.npy").shape == (2, 2)


def test_a_bad_one_does_not_stop_the_rest(server: "ScriptedServer") -> None:
    rows = lines(ROW, {**ROW, "source": "masked.pdb", "tokens": [1, 4096]}) + b"{junk\n" + lines({**ROW, "source": "c"})
    Path("tokens").write_bytes(rows)
    result = run(server, "--json", "--failures", "failed", "--out", "out", "tokens", "none")
    assert result.exit_code == 1
    assert [*files()] == ["1abc.pdb", "c.pdb"]
    assert result.stderr.splitlines() == [
        "3 of 5 inputs have no structure",
        "  2 UnreadableInput: tokens:3, none",
        "  1 InvalidStructure: masked.pdb",
    ]
    summary = json.loads(result.stdout)
    assert (summary["inputs"], summary["detokenized"], summary["residues"]) == (5, 2, 4)
    assert summary["failures"] == {"InvalidStructure": 1, "UnreadableInput": 2}
    failed = [json.loads(line) for line in Path("failed").read_text().splitlines()]
    assert failed[0]["violations"] == [{"field": "tokens[1]", "description": "a mask"}]
    assert [entry["source"] for entry in failed] == ["masked.pdb", "tokens:3", "none"]
    told = run(server, "--overwrite", "--out", "out", "tokens", "none").stderr.splitlines()
    assert told[0] == "masked.pdb: a mask"
    assert told[1].startswith("tokens:3: neither a row of tokens nor whole numbers")
    assert told[2] == "none: No such file or directory"
    quiet = run(server, "--quiet", "--overwrite", "--out", "out", "tokens", "none")
    assert (quiet.exit_code, quiet.stderr) == (1, "")


def test_tokens_of_another_version_are_told(server: "ScriptedServer") -> None:
    rows = lines(ROW, {**ROW, "source": "old.pdb", "codebook_version": "000001"}, {**ROW, "source": "c"})
    result = run(server, "--out", "out", "-", stdin=rows)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "old.pdb: tokens of another codebook",
        "1 of 3 inputs have no structure",
        "  1 FailedPrecondition: old.pdb",
    ]
    assert [*files()] == ["1abc.pdb", "c.pdb"]


def test_a_server_without_a_decoder(server: "ScriptedServer") -> None:
    server.servicer.has_decoder = False
    result = run(server, "-", stdin=lines(ROW))
    assert (result.exit_code, result.stderr) == (3, f"error: {server.target}: its model has no decoder\n")
    assert not server.servicer.detokenize_requests


def test_no_server() -> None:
    result = CliRunner().invoke(app, ["detokenize", "--server", "127.0.0.1:1", "--attempts", "1", "-"], input=b"1")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: cannot connect to 127.0.0.1:1: ")


def test_wrong_usage(server: "ScriptedServer") -> None:
    Path("file").write_text("x")
    for arguments, reason in (
        ([], "PATH"),
        (["--format", "xyz", "-"], "xyz"),
        (["--format", "npz", "-"], "needs a file"),
        (["--format", "jsonl", "-o", ".", "-"], "not a file in a folder that exists"),
        (["-o", "none/x.pdb", "-"], "not a file in a folder that exists"),
        (["-o", "file", "-"], "File exists"),
        (["--pae", "-"], "needs files to write to"),
        (["-", "-"], "once only"),
        (["--in-flight", "0", "-"], "in-flight"),
    ):
        result = run(server, *arguments, stdin=b"1")
        assert result.exit_code == 2, result.output
        assert reason in result.stderr
    assert not server.servicer.detokenize_requests


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_an_output_that_cannot_be_written(server: "ScriptedServer") -> None:
    result = run(server, "--format", "jsonl", "--out", "/dev/full", "-", stdin=lines(ROW))
    assert (result.exit_code, result.stderr) == (1, "error: cannot write /dev/full: No space left on device\n")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_progress_on_a_terminal(server: "ScriptedServer") -> None:
    import pty

    ours, theirs = pty.openpty()
    roots = os.pathsep.join(str(Path(__file__).parents[3] / folder) for folder in ("protos", "client"))
    command = [sys.executable, "-m", "foldmint_client", "detokenize", "--server", server.target, "--out", "out", "-"]
    done = subprocess.run(
        command,
        input=lines(ROW) + b"junk\n" + lines({**ROW, "source": "b"}),
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": roots},
        check=False,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:
        pass  # how Linux says that the other end is closed
    os.close(ours)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"detokenizing" in shown
    assert b"3/?" in shown
    assert b"-:2: neither a row of tokens nor whole numbers" in shown


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("a/1a8o.cif.gz", "1a8o"),
        ("a\\1a8o.PDB", "1a8o"),
        ("1a8o.ent:A", "1a8o_A"),
        ("-", "stdin"),
        ("-:3", "stdin_3"),
        ("-:A", "stdin_A"),
        ("..", "structure"),
        ("../..", "structure"),
        (".hidden.pdb", "hidden"),
        ("a b*?.pdb", "a_b__"),
        ("", "structure"),
        ("x" * 300, "x" * 200),
        ("1.2.3-beta+x_y", "1.2.3-beta+x_y"),
    ],
)
def test_names_of_files(source: str, stem: str) -> None:
    assert file_stem(source) == stem
