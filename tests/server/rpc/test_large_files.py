"""Files that are read in child processes: the same answers, and what ends a child harms no other request."""

import gzip
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from benchmarks.speed.large_files import large_file
from foldmint.v1 import tokenizer_pb2 as pb
from helpers.support import RunningServer, metrics_of, running_server, stub_of
from helpers.waiting import wait_until

SIZE = ["--max-message-bytes", str(2**27), "--max-residues", "200000"]
KILLED = 'foldmint_parsers_killed_total{reason="%s"}'


@pytest.fixture(scope="module")
def own() -> Iterator[RunningServer]:
    with running_server(*SIZE) as server:
        yield server


@pytest.fixture(scope="module")
def large() -> bytes:
    return large_file(12)


def _request(content: bytes, chain: str = "C1") -> pb.TokenizeRequest:
    return pb.TokenizeRequest(file=pb.StructureFile(content=content, chains=[chain]))


def _children(server: RunningServer) -> list[int]:
    """Of the server: the processes that read files."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    found = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return [pid for pid in found if b"foldmint_tokenizer.parsing.child" in _command(pid)]


def _command(pid: int) -> bytes:
    with suppress(OSError):  # it ended meanwhile
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_answers_are_those_of_threads(own: RunningServer, large: bytes) -> None:
    requests = [_request(large), _request(gzip.compress(large, 1)), _request(large, "C2")]
    requests[2].options.complex = True
    with running_server(*SIZE, "--parse-processes", "0") as other, stub_of(own) as stub, stub_of(other) as threads:
        for request in requests:
            assert stub.Tokenize(request) == threads.Tokenize(request)
        assert _children(own)
        assert not _children(other)
        refused = _request(large, "no such chain")
        errors = []
        for one in (stub, threads):
            with pytest.raises(grpc.RpcError) as refusal:
                one.Tokenize(refused)
            errors.append((refusal.value.code(), refusal.value.details()))
        assert errors[0] == errors[1]
        assert errors[0][0] is grpc.StatusCode.INVALID_ARGUMENT


def test_small_requests_are_answered_meanwhile(own: RunningServer, large: bytes, data: Path) -> None:
    small = pb.TokenizeRequest(file=pb.StructureFile(content=(data / "1a8o.cif").read_bytes()))
    with stub_of(own) as stub, stub_of(own) as others:
        expected = stub.Tokenize(small)
        with ThreadPoolExecutor() as pool:
            read = pool.submit(others.Tokenize, _request(large))
            answered = 0
            while not read.done():
                assert stub.Tokenize(small) == expected
                answered += 1
            assert read.result().chains
        assert answered > 1


def _kill_readers(server: RunningServer, times: int) -> threading.Thread:
    """Kill the child that reads, so often, as soon as it does."""
    idle = {pid: _cpu_ticks(pid) for pid in _children(server)}

    def busy() -> list[int]:
        # A new child was started for a file, and is killed at whatever it does first.
        return [pid for pid in _children(server) if pid not in idle or _cpu_ticks(pid) > idle[pid] + 3]

    def kill() -> None:
        for _ in range(times):
            wait_until(busy)
            (pid,) = busy()
            os.kill(pid, signal.SIGKILL)
            wait_until(partial(_is_gone, server, pid))

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def _is_gone(server: RunningServer, pid: int) -> bool:
    return pid not in _children(server)


def _cpu_ticks(pid: int) -> int:
    """Of the CPU, what a process has used; 0 if there is none any more."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    return 0


def test_a_child_that_dies_is_replaced(own: RunningServer, large: bytes) -> None:
    """Once, the file is read again, and nobody notices; twice, the file is at fault."""
    with stub_of(own) as stub:
        expected = stub.Tokenize(_request(large))
        before = metrics_of(own)[KILLED % "crash"]
        killer = _kill_readers(own, 1)
        assert stub.Tokenize(_request(large)) == expected
        killer.join()
        assert metrics_of(own)[KILLED % "crash"] == before + 1
        killer = _kill_readers(own, 2)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.Tokenize(_request(large))
        killer.join()
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "SIGKILL, twice" in str(refusal.value.details())
        assert metrics_of(own)[KILLED % "crash"] == before + 3
        assert stub.Tokenize(_request(large)) == expected


def test_files_that_take_too_long_are_refused(large: bytes, data: Path) -> None:
    with running_server(*SIZE, "--max-parse-seconds", "0.05") as server, stub_of(server) as stub:
        with pytest.raises(grpc.RpcError) as refusal:
            stub.Tokenize(_request(large))
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "0.05 s" in str(refusal.value.details())
        status = rpc_status.from_call(refusal.value)  # type: ignore[arg-type]
        assert status is not None
        detail = error_details_pb2.BadRequest()
        assert status.details[0].Unpack(detail)
        assert detail.field_violations[0].field == "file.content"
        assert metrics_of(server)[KILLED % "limit"] == 1
        small = pb.TokenizeRequest(file=pb.StructureFile(content=(data / "1a8o.cif").read_bytes()))
        assert stub.Tokenize(small).chains


def test_a_server_that_stops_ends_its_children(large: bytes) -> None:
    with running_server(*SIZE) as server, stub_of(server) as stub:
        stub.Tokenize(_request(large))
        (pid,) = _children(server)
    assert not Path(f"/proc/{pid}").exists()
