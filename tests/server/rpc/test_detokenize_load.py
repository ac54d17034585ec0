"""Many tokens to decode at once: a full queue, callers that give up, a server that stops, and one that is stuck."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foldmint.v1 import tokenizer_pb2 as pb
from helpers.servers.faults import faulty_server, held_up
from helpers.support import RunningServer, metrics_of, stub_of
from helpers.waiting import wait_until


def any_tokens(residues: int) -> list[int]:
    tokens: list[int] = np.random.default_rng(residues).integers(0, 4096, residues).tolist()
    return tokens


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "faults"


@pytest.fixture(scope="module")
def holdable(decoding_store: Path, faults: Path) -> Iterator[RunningServer]:
    """A server that soon takes itself for stuck."""
    arguments = ["--model", str(decoding_store), "--stuck-seconds", "0.05", "--log-level", "error"]
    with faulty_server(faults, *arguments) as server:
        yield server


def test_a_full_queue_is_told_and_passes(decoding_store: Path, faults: Path) -> None:
    limits = ["--max-detokenize-residues", "400", "--max-queued-detokenize-residues", "1200"]
    request = pb.DetokenizeRequest(tokens=any_tokens(400))
    with faulty_server(faults, "--model", str(decoding_store), *limits) as server, stub_of(server) as stub:
        with held_up(faults):
            calls = [stub.Detokenize.future(request, timeout=100) for _ in range(24)]
            wait_until(lambda: metrics_of(server)['foldmint_rejects_total{reason="queue_full"}'] == 21)
        assert Counter(call.code().name for call in calls) == {"OK": 3, "RESOURCE_EXHAUSTED": 21}
        assert len(stub.Detokenize(request).chains) == 1
        found = metrics_of(server)
        with pytest.raises(grpc.RpcError, match="tokens: 401 residues; at most 400 are taken"):
            stub.Detokenize(pb.DetokenizeRequest(tokens=any_tokens(401)))
    assert found['foldmint_rejects_total{reason="queue_full"}'] == 21
    assert found['foldmint_requests_total{method="Detokenize",status="RESOURCE_EXHAUSTED"}'] == 21
    assert found['foldmint_requests_total{method="Detokenize",status="OK"}'] == 4
    assert found['foldmint_request_duration_seconds_count{method="Detokenize"}'] == 25
    assert found['foldmint_stage_duration_seconds_count{stage="decode"}'] == 4
    assert found["foldmint_detokenized_residues_total"] == 400 * 4
    assert found["foldmint_queued_detokenize_residues"] == 0
    # What is decoded is not use of a code.
    assert sum(value for name, value in found.items() if name.startswith("foldmint_code_hits_total")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_who_gives_up_before_its_turn_is_not_decoded(holdable: RunningServer, faults: Path, how: str) -> None:
    one, other = pb.DetokenizeRequest(tokens=any_tokens(150)), pb.DetokenizeRequest(tokens=any_tokens(140))
    cancelled = 'foldmint_requests_total{method="Detokenize",status="CANCELLED"}'
    before = metrics_of(holdable)
    with stub_of(holdable) as stub:
        with held_up(faults):
            running = stub.Detokenize.future(one, timeout=100)
            awaited(holdable, "foldmint_queued_detokenize_residues", 150)
            given_up = [stub.Detokenize.future(other, timeout=2 if how == "deadline" else 100) for _ in range(3)]
            if how == "cancel":
                awaited(holdable, "foldmint_queued_detokenize_residues", 150 + 3 * 140)
                for call in given_up:
                    call.cancel()
            awaited(holdable, cancelled, before.get(cancelled, 0) + 3)
        assert len(running.result().chains[0].plddt) == 150
        expected = grpc.StatusCode.DEADLINE_EXCEEDED if how == "deadline" else grpc.StatusCode.CANCELLED
        assert [call.code() for call in given_up] == [expected] * 3
        assert len(stub.Detokenize(pb.DetokenizeRequest(tokens=any_tokens(50)), timeout=30).chains[0].plddt) == 50
    decoded = "foldmint_detokenized_residues_total"
    assert metrics_of(holdable)[decoded] == before[decoded] + 200


def awaited(server: RunningServer, name: str, value: float) -> None:
    wait_until(lambda: metrics_of(server).get(name) == value)


def test_stopping_finishes_what_was_admitted(decoding_store: Path, faults: Path) -> None:
    request = pb.DetokenizeRequest(tokens=any_tokens(500))
    with faulty_server(faults, "--model", str(decoding_store)) as server, stub_of(server) as stub:
        with held_up(faults):
            calls = [stub.Detokenize.future(request, timeout=100) for _ in range(4)]
            awaited(server, "foldmint_queued_detokenize_residues", 4 * 500)
            server.process.terminate()
        assert [len(call.result().chains[0].plddt) for call in calls] == [500] * 4
        assert server.process.wait(60) == 0


@pytest.mark.slow
def test_health_fails_while_decoding_is_stuck(holdable: RunningServer, faults: Path) -> None:
    request = pb.DetokenizeRequest(tokens=any_tokens(200))
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    with stub_of(holdable) as stub, grpc.insecure_channel(holdable.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert status(health) == serving
        with held_up(faults):
            call = stub.Detokenize.future(request, timeout=200)
            wait_until(lambda: status(health) == not_serving)
        assert len(call.result().chains) == 1
        wait_until(lambda: status(health) == serving)


def status(health: health_pb2_grpc.HealthStub) -> int:
    answer: health_pb2.HealthCheckResponse = health.Check(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
    return answer.status
