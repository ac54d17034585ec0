"""A real server whose devices, disk and clock fail: what can be answered is, and the rest is told as what it is."""

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_tokenizer import StructureTokenizer, backbone
from helpers.chains import RealChain
from helpers.servers.faults import faulty_server
from helpers.support import RunningServer, metrics_of, request_of, stub_of

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "faults"


@pytest.fixture(scope="module")
def faulty(faults: Path) -> Iterator[RunningServer]:
    """A server of two devices, with a log on a disk that is full."""
    arguments = ["--device", "cpu,cpu", "--threads", "2", "--log-level", "info"]
    with faulty_server(faults, *arguments, log=Path("/dev/full")) as server:
        yield server


@pytest.fixture
def stub(faulty: RunningServer, faults: Path) -> Iterator[rpc.TokenizerServiceStub]:
    with stub_of(faulty) as one:
        yield one
    faults.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def wanted(short: list[RealChain]) -> list[list[int]]:
    tokenizer = StructureTokenizer.load()
    return [tokenizer.tokenize(backbone(chain.coordinates, chain.residue_index))[0].tokens.tolist() for chain in short]


def answers(stub: rpc.TokenizerServiceStub, requests: list[pb.TokenizeRequest]) -> list[list[int] | grpc.StatusCode]:
    """Tokens, or the status, of requests that are under way at the same time."""
    return [
        list(call.result().chains[0].tokens) if call.code() == grpc.StatusCode.OK else call.code()
        for call in [stub.Tokenize.future(request, timeout=60) for request in requests]
    ]


def failures(server: RunningServer, reason: str) -> float:
    return metrics_of(server)[f'foldmint_step_failures_total{{reason="{reason}"}}']


def at_fault(chain: RealChain) -> pb.TokenizeRequest:
    """A structure that the faulty server fails with."""
    coordinates = chain.coordinates.copy()
    coordinates[-1] += 9000
    return request_of(RealChain(chain.id, chain.sequence, chain.residue_index, coordinates))


def test_without_memory_steps_are_smaller_and_nothing_is_lost(
    faulty: RunningServer, stub: rpc.TokenizerServiceStub, faults: Path, short: list[RealChain], wanted: list[list[int]]
) -> None:
    before = failures(faulty, "out_of_memory")
    faults.write_text("memory 20")
    assert answers(stub, [request_of(chain) for chain in short]) == wanted
    assert failures(faulty, "out_of_memory") > before
    faults.write_text("memory 0")
    assert answers(stub, [request_of(short[0])]) == [grpc.StatusCode.RESOURCE_EXHAUSTED]
    faults.unlink()
    assert answers(stub, [request_of(chain) for chain in short]) == wanted


@pytest.mark.parametrize(("fault", "reason"), [("not_finite 1", "not_finite"), ("broken 1", "error")])
def test_only_the_structure_at_fault_fails(
    faulty: RunningServer,
    stub: rpc.TokenizerServiceStub,
    faults: Path,
    short: list[RealChain],
    wanted: list[list[int]],
    fault: str,
    reason: str,
) -> None:
    before = failures(faulty, reason)
    faults.write_text(fault)
    requests = [request_of(chain) for chain in short]
    assert answers(stub, [*requests, at_fault(short[0])]) == [*wanted, grpc.StatusCode.INTERNAL]
    assert failures(faulty, reason) > before


@pytest.mark.parametrize("seconds", [-86_400, 86_400 * 365])
def test_a_clock_that_jumps_changes_nothing(
    faulty: RunningServer,
    stub: rpc.TokenizerServiceStub,
    faults: Path,
    short: list[RealChain],
    wanted: list[list[int]],
    seconds: int,
) -> None:
    calls = [stub.Tokenize.future(request_of(chain), timeout=60) for chain in short]
    faults.write_text(f"clock {seconds}")
    assert [list(call.result().chains[0].tokens) for call in calls] == wanted
    time.sleep(1.5)  # the devices were looked at since
    assert answers(stub, [request_of(chain) for chain in short]) == wanted
    with grpc.insecure_channel(faulty.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == SERVING  # type: ignore[attr-defined]
    found = metrics_of(faulty)
    assert 0 <= found['foldmint_request_duration_seconds_sum{method="Tokenize"}'] < 1000
    assert found["foldmint_code_utilization_ratio"] > 0


@pytest.mark.slow
def test_one_device_of_two_is_lost_and_then_the_other(
    tmp_path: Path, chains: list[RealChain], short: list[RealChain], wanted: list[list[int]]
) -> None:
    faults = tmp_path / "faults"
    log = tmp_path / "log"
    arguments = ["--device", "cpu,cpu", "--threads", "2"]
    with (
        faulty_server(faults, *arguments, log=log, code=3) as server,
        stub_of(server) as stub,
        grpc.insecure_channel(server.address) as channel,
    ):
        faults.write_text("lost 0")
        until = time.monotonic() + 60
        while failures(server, "device_lost") == 0 and time.monotonic() < until:
            for answer in answers(stub, [request_of(chain) for chain in short]):
                assert answer in [*wanted, grpc.StatusCode.UNAVAILABLE]
        assert failures(server, "device_lost") == 1
        assert answers(stub, [request_of(chain) for chain in short]) == wanted
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)  # type: ignore[attr-defined]
        assert next(watch).status == SERVING
        assert metrics_of(server)["foldmint_ready"] == 1
        calls = [stub.Tokenize.future(request_of(chain), timeout=60) for chain in chains[:20]]
        faults.write_text("lost 1")
        began = time.monotonic()
        calls += [stub.Tokenize.future(request_of(chain), timeout=60) for chain in short]
        assert next(watch).status == NOT_SERVING
        assert time.monotonic() - began < 20  # within 5 on a machine with nothing else to do
        # Nobody is left waiting.
        codes = {call.code() for call in calls}
        assert grpc.StatusCode.UNAVAILABLE in codes
        assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert server.process.wait(60) == 3
    assert "the thread of a device died" in log.read_text()
