"""The command, against a server: what it prints, writes and exits with."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from foldmint.v1 import tokenizer_pb2

if TYPE_CHECKING:
    from client.conftest import Certificates, ScriptedServer
from client.cli.command import rows, run, tokenize

KEYS = ["source", "chain", "residue_index", "sequence", "tokens", "has_frame", "model", "codebook_version"]
TOLD = ["left_out", "warnings"]
ROOT = Path(__file__).parents[3]


def test_json_lines_in_the_order_of_the_input(server: "ScriptedServer", files: list[str]) -> None:
    result = tokenize(server, "--format", "jsonl", *files)
    assert (result.exit_code, result.stderr) == (0, "")
    found = rows(result)
    assert [row["source"] for row in found] == files
    assert [*found[0]] == [*KEYS, *TOLD]
    assert found[0] == {
        "source": "3.pdb",
        "chain": "A",
        "residue_index": [-1, 5, 5],
        "sequence": "GAS",
        "tokens": [3, 4, 5],
        "has_frame": [True, True, False],
        "model": "scripted",
        "codebook_version": "000007",
        "left_out": [],
        "warnings": [],
    }


def test_extra_keys_when_asked_for(server: "ScriptedServer", files: list[str]) -> None:
    (row,) = rows(tokenize(server, "--distances", "--insertion-codes", files[0]))
    assert [*row] == [*KEYS, "insertion_codes", "distances", *TOLD]
    assert (row["insertion_codes"], row["distances"]) == ("  A", [0.1, 2.5, None])


def test_options_reach_the_server(server: "ScriptedServer", files: list[str]) -> None:
    flags = ["--complex", "--special-tokens", "--distances"]
    options = [*flags, "--chain", "A", "--chain", "B", "--model-number", "2", "--in-flight", "1"]
    options += ["--reading", "esm", "--min-plddt", "0", "--assembly", "1", "--renumber"]
    assert tokenize(server, *options, files[0]).exit_code == 0
    (request,) = server.servicer.requests
    assert (request.options.complex, request.options.special_tokens, request.options.distances) == (True, True, True)
    assert (list(request.file.chains), request.file.model_number) == (["A", "B"], 2)
    assert (request.file.reading, request.file.assembly) == (tokenizer_pb2.READING_ESM, "1")
    assert request.file.renumber
    assert (request.file.HasField("min_plddt"), request.file.min_plddt) == (True, 0)
    assert tokenize(server, files[0]).exit_code == 0
    last = server.servicer.requests[-1].file
    assert (last.reading, last.HasField("min_plddt"), last.assembly) == (tokenizer_pb2.READING_UNSPECIFIED, False, "")


def test_standard_input_folder_and_pattern(server: "ScriptedServer", files: list[str]) -> None:
    result = tokenize(server, "-", ".", "[12].pdb", stdin=b"40")
    found = [(row["source"], row["tokens"]) for row in rows(result)]
    sources = ["-", "./1.pdb", "./2.pdb", "./3.pdb", "1.pdb", "2.pdb"]
    assert [source for source, _ in found] == sources
    assert found[0][1] == [40, 41, 42]


def test_a_bad_file_does_not_stop_the_rest(server: "ScriptedServer", files: list[str]) -> None:
    Path("bad.pdb").write_text("bad")
    result = tokenize(server, "3.pdb", "bad.pdb", "none.pdb", "*.xyz", "1.pdb")
    assert result.exit_code == 1
    assert [row["source"] for row in rows(result)] == ["3.pdb", "1.pdb"]
    lines = result.stderr.splitlines()
    assert sorted(lines[:3]) == [
        "*.xyz: no file matches this pattern",
        "bad.pdb: no protein (file.content: there is no protein in the file)",
        "none.pdb: No such file or directory",
    ]
    assert lines[3:] == [
        "3 of 5 inputs have no tokens",
        "  2 UnreadableInput: *.xyz, none.pdb",
        "  1 InvalidStructure: bad.pdb",
    ]


def test_many_failures_are_told_in_few_lines(server: "ScriptedServer", files: list[str]) -> None:
    Path("in").mkdir()
    for number in range(126):
        Path(f"in/{number:03}.pdb").write_text("bad")
    summary = [
        "126 of 127 inputs have no tokens",
        f"  126 InvalidStructure: {', '.join(f'in/{number:03}.pdb' for number in range(5))} and 121 more",
    ]
    result = tokenize(server, files[0], "in")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines[:10]] == [f"in/{number:03}.pdb" for number in range(10)]
    assert lines[10:] == ["more failures are counted; --failures FILE lists them", *summary]
    assert tokenize(server, "--failures", "failed", files[0], "in").stderr.splitlines() == summary
    assert len(Path("failed").read_text().splitlines()) == 126
    quiet = tokenize(server, "--quiet", files[0], "in")
    assert (quiet.exit_code, quiet.stderr) == (1, "")


def test_what_failed_is_written_and_counted(server: "ScriptedServer", files: list[str]) -> None:
    Path("bad.pdb").write_text("bad")
    options = ["--failures", "failed.jsonl", "--json", "-o", "out.jsonl"]
    result = tokenize(server, *options, "3.pdb", "bad.pdb", "none.pdb", "*.xyz")
    assert result.exit_code == 1
    failed = [json.loads(line) for line in Path("failed.jsonl").read_text().splitlines()]
    assert failed == [
        {"source": "*.xyz", "kind": "UnreadableInput", "message": "no file matches this pattern"},
        {
            "source": "bad.pdb",
            "kind": "InvalidStructure",
            "message": "no protein (file.content: there is no protein in the file)",
            "violations": [{"field": "file.content", "description": "there is no protein in the file"}],
        },
        {"source": "none.pdb", "kind": "UnreadableInput", "message": "No such file or directory"},
    ]
    summary = json.loads(result.stdout)
    assert summary.pop("seconds") >= 0
    assert summary == {
        "inputs": 4,
        "tokenized": 1,
        "earlier": 0,
        "failed": 3,
        "residues": 3,
        "failures": {"UnreadableInput": 2, "InvalidStructure": 1},
        "left_out": {},
        "warnings": 0,
        "output": "out.jsonl",
    }


def test_answers_as_they_come(server: "ScriptedServer", files: list[str]) -> None:
    def last_first(requests: Any, context: Any) -> Any:
        yield from map(server.answer, reversed([next(requests) for _ in files]))

    server.servicer.stream = last_first
    assert [row["source"] for row in rows(tokenize(server, "--unordered", *files))] == files[::-1]
    assert [row["source"] for row in rows(tokenize(server, *files))] == files


def test_no_server(files: list[str]) -> None:
    for command in (["tokenize", files[0], "--attempts", "1"], ["info", "--attempts", "1"], ["health"]):
        result = run(*command, "--server", "127.0.0.1:1")
        assert result.exit_code == 3
        assert result.stdout == ""
        assert result.stderr.startswith("error: cannot connect to 127.0.0.1:1: nothing listens on port 1")
        assert "Connection refused" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_server_that_refuses_all(server: "ScriptedServer", files: list[str]) -> None:
    server.fail(grpc.StatusCode.UNAUTHENTICATED)
    result = tokenize(server, "-o", "out.jsonl", *files)
    assert (result.exit_code, result.stderr) == (3, f"error: {server.target}: as scripted\n")
    assert not [*Path().glob("*out.jsonl*")]


def test_wrong_usage(server: "ScriptedServer", files: list[str]) -> None:
    for arguments, reason in (
        ([], "PATH"),
        (["--format", "npz", "3.pdb"], "needs a file"),
        (["--format", "xml", "3.pdb"], "xml"),
        (["--json", "3.pdb"], "standard output"),
        (["--resume", "3.pdb"], "can be resumed"),
        (["--resume", "--format", "npz", "-o", "out", "3.pdb"], "can be resumed"),
        (["--rows-per-shard", "2", "-o", "out", "3.pdb"], "--format parquet"),
        (["--rows-per-shard", "2", "--format", "parquet", "3.pdb"], "need a folder"),
        (["--rows-per-shard", "2", "--format", "parquet", "-o", "3.pdb", "3.pdb"], "need a folder"),
        (["--failures", "none/out", "3.pdb"], "not a file in a folder that exists"),
        (["-o", "none/out", "3.pdb"], "not a file in a folder that exists"),
        (["-o", ".", "3.pdb"], "not a file in a folder that exists"),
        (["-", "-"], "once only"),
        (["--timeout", "0", "3.pdb"], "timeout"),
        (["--tls-ca", "none.pem", "3.pdb"], "No such file"),
        (["--tls-key", "3.pdb", "3.pdb"], "go together"),
        (["--token-file", "none", "3.pdb"], "No such file"),
    ):
        result = tokenize(server, *arguments)
        assert result.exit_code == 2, result.output
        assert reason in result.stderr
    Path("token").write_text("s3cret\n")
    result = run("health", "--server", "example.org:1", "--token-file", "token")
    assert result.exit_code == 2
    assert "clear" in result.stderr
    assert "s3cret" not in result.stderr


def test_a_token_of_the_environment_is_sent_and_not_shown(
    server: "ScriptedServer", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FOLDMINT_TOKEN", "s3cret")
    monkeypatch.chdir(tmp_path)
    assert run("info", "--server", server.target).exit_code == 0
    assert server.servicer.metadata[-1]["authorization"] == "Bearer s3cret"
    Path("token").write_text("other\n")
    assert run("info", "--server", server.target, "--token-file", "token").exit_code == 0
    assert server.servicer.metadata[-1]["authorization"] == "Bearer other"
    server.fail(grpc.StatusCode.UNAUTHENTICATED)
    for arguments in (["info", "--help"], ["info", "--server", "example.org:1"], ["info", "--server", server.target]):
        result = run(*arguments)
        assert "s3cret" not in result.output + result.stderr


def test_info(server: "ScriptedServer") -> None:
    table = run("info", "--server", server.target)
    assert table.exit_code == 0
    assert "000007" in table.stdout
    assert "vocabulary mask" in table.stdout
    assert "decoder chained" in table.stdout
    answer = json.loads(run("info", "--server", server.target, "--json").stdout)
    assert (answer["model"], answer["sizes"]["codes"], answer["limits"]["residues"]) == ("scripted", 4096, 10)
    assert answer["decoder"]["width"] == 64
    server.servicer.has_decoder = False
    last = [line.split() for line in run("info", "--server", server.target).stdout.splitlines()[-2:]]
    assert last == [["decoder", "none"], ["lever", "none"]]


def test_health(server: "ScriptedServer", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDMINT_SERVER", server.target)
    assert (run("health").stdout, run("health").exit_code) == ("SERVING\n", 0)
    result = run("health", "--service", "foldmint.v1.TokenizerService")
    assert (result.stdout, result.exit_code) == ("SERVICE_UNKNOWN\n", 1)
    server.health.enter_graceful_shutdown()
    assert (run("health").stdout, run("health").exit_code) == ("NOT_SERVING\n", 1)
    result = run("health", "--json")
    assert (json.loads(result.stdout), result.exit_code) == ({"service": "", "status": "NOT_SERVING"}, 1)


def test_tls(tls_server: "ScriptedServer", certificates: "Certificates", files: list[str]) -> None:
    Path("token").write_text("s3cret\n")
    pair = ["--tls-certificate", str(certificates.certificate), "--tls-key", str(certificates.key)]
    options = ["--tls-ca", str(certificates.ca), *pair, "--token-file", "token"]
    assert tokenize(tls_server, *options, files[0]).exit_code == 0
    assert tls_server.servicer.metadata[0]["authorization"] == "Bearer s3cret"
    assert run("health", "--server", tls_server.target, *options).stdout == "SERVING\n"


def test_version() -> None:
    assert run("--version").stdout.startswith("foldmint ")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("protos", "client"))}


def test_a_reader_that_has_enough(server: "ScriptedServer", files: list[str]) -> None:
    command = [sys.executable, "-m", "foldmint_client", "tokenize", "--server", server.target, *files * 40]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_progress_on_a_terminal(server: "ScriptedServer", files: list[str]) -> None:
    import pty

    Path("bad.pdb").write_text("bad")
    for arguments, wanted in (([], "4/4"), (["--quiet"], None)):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "foldmint_client", "tokenize", "--server", server.target, *arguments]
        done = subprocess.run(
            [*command, *files, "bad.pdb"], stdout=subprocess.PIPE, stderr=theirs, env=environment(), check=False
        )
        os.close(theirs)
        shown = io.BytesIO()
        try:
            while part := os.read(ours, 4096):
                shown.write(part)
        except OSError:
            pass  # how Linux says that the other end is closed
        os.close(ours)
        assert done.returncode == 1
        assert len(done.stdout.splitlines()) == 3
        text = shown.getvalue().decode()
        assert ("bad.pdb: no protein" in text) is bool(wanted)
        assert ("1 failed" in text) is bool(wanted)
        assert (wanted in text) if wanted else "tokenizing" not in text
