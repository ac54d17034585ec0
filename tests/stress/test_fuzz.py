"""Files and messages that no one meant are taken or refused as promised, in bounded time and memory.

The long form: python -m benchmarks fuzz
"""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from stress import broken_reader

from benchmarks.stress import reader, wire
from benchmarks.stress.files import regressions
from benchmarks.stress.servers import KillableServer
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from helpers.forking import ForkedKillableServer

FILES, MESSAGES = 2500, 600


@pytest.fixture(scope="module")
def asked() -> Iterator[KillableServer]:
    with ForkedKillableServer(*wire.ARGUMENTS) as server:
        yield server


def test_the_kept_files_are_read_or_refused() -> None:
    found = reader.replay(regressions())
    assert found.wrong == []
    assert found.inputs == len(regressions()) > 40


def test_files_changed_by_chance_are_read_or_refused() -> None:
    found = reader.hunt(0, FILES)
    assert found.wrong == []
    assert found.inputs == FILES
    assert min(found.outcomes["read"], found.outcomes["refused"]) > FILES / 10


def test_a_server_answers_or_refuses_the_kept_files(asked: KillableServer) -> None:
    with grpc.insecure_channel(asked.address) as channel:
        stub = rpc.TokenizerServiceStub(channel)
        for path in regressions():
            request = pb.TokenizeRequest(file=pb.StructureFile(content=path.read_bytes()))
            refusal: grpc.RpcError | None = None
            try:
                stub.Tokenize(request, timeout=60)
            except grpc.RpcError as error:
                refusal = error
            assert refusal is None or wire.refused(refusal) == "refused", path.name


def test_messages_changed_by_chance_are_answered_or_refused(asked: KillableServer) -> None:
    target = wire.Target(asked.address, asked.pid)
    found = target.hunt(0, MESSAGES)
    target.close()
    assert found.wrong == []
    assert found.inputs == MESSAGES
    assert min(found.outcomes["answered"], found.outcomes["refused"]) > MESSAGES / 20
    assert asked.running


def test_what_crashes_hangs_or_takes_all_memory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a reader with these faults, each is told with its input, and the rest goes on."""
    monkeypatch.setattr(reader, "MODULE", broken_reader.__name__)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent), prepend=":")
    found = reader.hunt(0, 8)
    assert dict(found.wrong) == broken_reader.FOUND
    assert found.outcomes == {"read": 8 - len(broken_reader.FOUND)}
