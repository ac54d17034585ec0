"""Histograms of what was asked for, and the bytes of messages, on a real server."""

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foldmint.v1 import codebook_pb2 as cb
from foldmint.v1 import tokenizer_pb2 as pb
from helpers.chains import RealChain
from helpers.support import admin_of, metrics_of, request_of, running_server, stub_of


def test_bytes_chains_and_batches_are_counted(short: list[RealChain]) -> None:
    with running_server("--device", "cpu") as server, stub_of(server) as stub, admin_of(server) as admin:
        before = metrics_of(server)
        for method in ("Tokenize", "TokenizeStream", "Detokenize", "GetModel"):  # from the start
            assert before[f'foldmint_received_bytes_total{{method="{method}"}}'] == 0
            assert before[f'foldmint_sent_bytes_total{{method="{method}"}}'] == 0
        received: dict[str, int] = {}
        sent: dict[str, int] = {}

        def count(method: str, request: int, response: int) -> None:
            received[method] = received.get(method, 0) + request
            sent[method] = sent.get(method, 0) + response

        for chain in short[:2]:
            request = request_of(chain)
            count("Tokenize", request.ByteSize(), stub.Tokenize(request).ByteSize())
        requests = [pb.TokenizeStreamRequest(id=number, request=request_of(one)) for number, one in enumerate(short)]
        answers = list(stub.TokenizeStream(iter(requests)))
        count("TokenizeStream", sum(map(_size, requests)), sum(map(_size, answers)))
        # Compressed on its way, and counted as it is.
        large = request_of(max(short, key=lambda one: len(one.sequence)))
        answer = stub.Tokenize(large, compression=grpc.Compression.Gzip)
        count("Tokenize", large.ByteSize(), answer.ByteSize())
        usage = cb.GetUsageRequest(version="000001")
        count("GetUsage", usage.ByteSize(), admin.GetUsage(usage).ByteSize())
        with grpc.insecure_channel(server.address) as channel:
            check = health_pb2.HealthCheckRequest(service="foldmint.v1.TokenizerService")
            health: Any = health_pb2_grpc.HealthStub(channel)
            count("Check", check.ByteSize(), health.Check(check).ByteSize())
            unary: Any = channel.unary_unary
            # A message that is none was read; one of a method that there is not was not.
            with pytest.raises(grpc.RpcError, match="its bytes are not a message"):
                unary("/foldmint.v1.TokenizerService/Tokenize")(b"\xff\xff\xff")
            with pytest.raises(grpc.RpcError):
                unary("/foldmint.v1.TokenizerService/Nothing")(b"x")
        received["Tokenize"] += 3
        with pytest.raises(grpc.RpcError, match="unknown format"):
            stub.Tokenize(junk := pb.TokenizeRequest(file=pb.StructureFile(content=b"junk")))
        received["Tokenize"] += junk.ByteSize()
        after = metrics_of(server)
    for name, counted in (("received", received), ("sent", sent)):
        found = {key: value for key, value in after.items() if key.startswith(f"foldmint_{name}_bytes_total")}
        assert {key: value for key, value in found.items() if value} == {
            f'foldmint_{name}_bytes_total{{method="{method}"}}': value for method, value in counted.items()
        }
        assert not any("Nothing" in key for key in found)

    lengths = [len(chain.sequence) for chain in (*short[:2], *short, max(short, key=lambda one: len(one.sequence)))]
    assert after["foldmint_chain_residues_count"] == len(lengths)
    assert after["foldmint_chain_residues_sum"] == sum(lengths)
    for bound in (16, 64, 128):
        assert after[f'foldmint_chain_residues_bucket{{le="{bound}.0"}}'] == sum(one <= bound for one in lengths)
    # The batches of warming up are not the callers'.
    assert before['foldmint_batch_residues_count{device="cpu"}'] == 0
    batches = after["foldmint_batches_total"]
    assert after['foldmint_batch_residues_count{device="cpu"}'] == batches >= 1
    assert after['foldmint_batch_duration_seconds_count{device="cpu"}'] == batches
    assert after['foldmint_batch_residues_sum{device="cpu"}'] == sum(lengths)
    computing = after['foldmint_stage_duration_seconds_sum{stage="compute"}']
    assert 0 < after['foldmint_batch_duration_seconds_sum{device="cpu"}'] <= computing


def _size(message: pb.TokenizeStreamRequest | pb.TokenizeStreamResponse) -> int:
    return message.ByteSize()
