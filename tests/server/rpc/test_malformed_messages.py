"""Bytes that are not a message are refused like all else that cannot be taken, and cost no traceback in the log."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foldmint.v1 import tokenizer_pb2 as pb
from helpers.support import RunningServer, running_server

NO_MESSAGE = b"\xff\xff"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "log.txt"


@pytest.fixture(scope="module")
def own(log: Path) -> Iterator[RunningServer]:
    with running_server(log=log) as server:
        yield server


@pytest.mark.parametrize(
    ("listener", "method"),
    [
        ("address", "/foldmint.v1.TokenizerService/Tokenize"),
        ("address", "/foldmint.v1.TokenizerService/Detokenize"),
        ("address", "/foldmint.v1.TokenizerService/TokenizeStream"),
        ("address", "/grpc.health.v1.Health/Check"),
        ("address", "/grpc.health.v1.Health/Watch"),
        ("admin", "/foldmint.v1.CodebookService/ActivateCodebook"),
    ],
)
def test_each_kind_of_call(own: RunningServer, log: Path, listener: str, method: str) -> None:
    with grpc.insecure_channel(getattr(own, listener)) as channel:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([NO_MESSAGE]), timeout=60))
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "message: its bytes are not a message of this method's type"
    assert "Traceback" not in log.read_text()


def test_what_a_stream_sent_before_is_answered(own: RunningServer) -> None:
    good = pb.TokenizeStreamRequest(id=5, request=pb.TokenizeRequest(file=pb.StructureFile(content=b"x")))
    with grpc.insecure_channel(own.address) as channel:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/foldmint.v1.TokenizerService/TokenizeStream"
        )
        responses = call(iter([good.SerializeToString(), NO_MESSAGE, good.SerializeToString()]), timeout=60)
        assert pb.TokenizeStreamResponse.FromString(next(responses)).id == 5
        with pytest.raises(grpc.RpcError) as caught:
            next(responses)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_watch_of_health_goes_on(own: RunningServer) -> None:
    """Its servicer writes to the context, unlike all others."""
    with grpc.insecure_channel(own.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)  # type: ignore[attr-defined]
        assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
