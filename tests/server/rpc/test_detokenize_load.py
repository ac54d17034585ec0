"""Many tokens to decode at once: a full queue, callers that give up, a server that stops, and one that is stuck."""

import threading
import time
import urllib.request
from pathlib import Path
from typing import cast

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foldmint.v1 import tokenizer_pb2 as pb
from helpers.support import RunningServer, running_server, stub_of


def any_tokens(residues: int) -> list[int]:
    tokens: list[int] = np.random.default_rng(residues).integers(0, 4096, residues).tolist()
    return tokens


def metrics_of(server: RunningServer) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_a_full_queue_is_told_and_passes(decoding_store: Path) -> None:
    limits = ["--max-detokenize-residues", "400", "--max-queued-detokenize-residues", "1200"]
    outcomes: list[str] = []
    request = pb.DetokenizeRequest(tokens=any_tokens(400))
    with running_server("--model", str(decoding_store), *limits) as server, stub_of(server) as stub:

        def client() -> None:
            try:
                stub.Detokenize(request, timeout=100)
                outcomes.append("OK")
            except grpc.RpcError as error:
                outcomes.append(cast(grpc.Call, error).code().name)

        threads = [threading.Thread(target=client) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(outcomes) == {"OK", "RESOURCE_EXHAUSTED"}
        assert len(stub.Detokenize(request).chains) == 1
        found = metrics_of(server)
        with pytest.raises(grpc.RpcError, match="tokens: 401 residues; at most 400 are taken"):
            stub.Detokenize(pb.DetokenizeRequest(tokens=any_tokens(401)))
    refused = outcomes.count("RESOURCE_EXHAUSTED")
    assert found['foldmint_rejects_total{reason="queue_full"}'] == refused
    assert found['foldmint_requests_total{method="Detokenize",status="RESOURCE_EXHAUSTED"}'] == refused
    assert found['foldmint_requests_total{method="Detokenize",status="OK"}'] == 25 - refused
    assert found['foldmint_request_duration_seconds_count{method="Detokenize"}'] == 25
    assert found['foldmint_stage_duration_seconds_count{stage="decode"}'] == 25 - refused
    assert found["foldmint_detokenized_residues_total"] == 400 * (25 - refused)
    assert found["foldmint_queued_detokenize_residues"] == 0
    # What is decoded is not use of a code.
    assert sum(value for name, value in found.items() if name.startswith("foldmint_code_hits_total")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_who_gives_up_before_its_turn_is_not_decoded(decoding_store: Path, how: str) -> None:
    large, other = pb.DetokenizeRequest(tokens=any_tokens(1500)), pb.DetokenizeRequest(tokens=any_tokens(1400))
    with running_server("--model", str(decoding_store)) as server, stub_of(server) as stub:
        running = stub.Detokenize.future(large, timeout=100)
        awaited(server, "foldmint_queued_detokenize_residues", 1500)
        given_up = [stub.Detokenize.future(other, timeout=0.4 if how == "deadline" else 100) for _ in range(3)]
        if how == "cancel":
            awaited(server, "foldmint_queued_detokenize_residues", 1500 + 3 * 1400)
            for call in given_up:
                call.cancel()
        assert len(running.result().chains[0].plddt) == 1500
        expected = grpc.StatusCode.DEADLINE_EXCEEDED if how == "deadline" else grpc.StatusCode.CANCELLED
        assert [call.code() for call in given_up] == [expected] * 3
        assert len(stub.Detokenize(pb.DetokenizeRequest(tokens=any_tokens(50)), timeout=30).chains[0].plddt) == 50
        found = metrics_of(server)
        assert found["foldmint_detokenized_residues_total"] == 1550
        assert found['foldmint_requests_total{method="Detokenize",status="CANCELLED"}'] == 3


def awaited(server: RunningServer, name: str, value: float) -> None:
    until = time.monotonic() + 30
    while metrics_of(server)[name] != value:
        assert time.monotonic() < until, f"{name} is never {value}"
        time.sleep(0.02)


def test_stopping_finishes_what_was_admitted(decoding_store: Path) -> None:
    answers: list[int] = []
    request = pb.DetokenizeRequest(tokens=any_tokens(500))
    with running_server("--model", str(decoding_store)) as server, stub_of(server) as stub:

        def client() -> None:
            answers.append(len(stub.Detokenize(request, timeout=100).chains[0].plddt))

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        awaited(server, "foldmint_requests_in_flight", 4)
        server.process.terminate()
        for thread in threads:
            thread.join()
        assert server.process.wait(60) == 0
    assert answers == [500] * 4


@pytest.mark.slow
def test_health_fails_while_decoding_is_stuck(decoding_store: Path) -> None:
    request = pb.DetokenizeRequest(tokens=any_tokens(2000))
    arguments = ["--model", str(decoding_store), "--stuck-seconds", "0.05", "--log-level", "error"]
    with (
        running_server(*arguments) as server,
        stub_of(server) as stub,
        grpc.insecure_channel(server.address) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        seen = [status(health)]
        call = stub.Detokenize.future(request, timeout=200)
        while not call.done():
            seen.append(status(health))
            time.sleep(0.05)
        assert len(call.result().chains) == 1
        until = time.monotonic() + 10
        while status(health) != health_pb2.HealthCheckResponse.SERVING and time.monotonic() < until:
            time.sleep(0.05)
        assert status(health) == health_pb2.HealthCheckResponse.SERVING
    assert seen[0] == health_pb2.HealthCheckResponse.SERVING
    assert health_pb2.HealthCheckResponse.NOT_SERVING in seen


def status(health: health_pb2_grpc.HealthStub) -> int:
    answer: health_pb2.HealthCheckResponse = health.Check(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
    return answer.status
