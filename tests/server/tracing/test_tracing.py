"""Traces reach a real collector of OTLP over gRPC, tell what happened and when, and never stand in a request's way."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_client import AsyncClient, Backbone, Client
from helpers.chains import RealChain
from helpers.monitoring.otlp_collector import Collector, collector_running, facts, ordered
from helpers.support import RunningServer, metrics_of, request_of, running_server, stub_of
from helpers.waiting import wait_until

CALLER, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVICE = "foldmint.v1.TokenizerService"
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collector_running() as one:
        yield one


@pytest.fixture(scope="module")
def shared() -> Iterator[Collector]:
    with collector_running() as one:
        yield one


@pytest.fixture(scope="module")
def traced(shared: Collector, decoding_store: Path) -> Iterator[RunningServer]:
    """A traced server, of a model with a decoder, whose steps take 64 residues."""
    arguments = ("--model", str(decoding_store), "--max-batch-residues", "64", "--otlp-endpoint", shared.address)
    with running_server(*arguments, environment=QUICK) as server:
        yield server


@pytest.fixture
def stub(traced: RunningServer) -> Iterator[rpc.TokenizerServiceStub]:
    with stub_of(traced) as one:
        yield one


def context_of(trace: str, *, sampled: bool = True) -> tuple[tuple[str, str], ...]:
    return (("traceparent", f"00-{trace}-{PARENT}-{'01' if sampled else '00'}"),)


def test_a_call_tells_its_stages_under_the_callers_trace(
    stub: rpc.TokenizerServiceStub, shared: Collector, chains: list[RealChain]
) -> None:
    chain = min(chains, key=lambda one: abs(len(one.coordinates) - 150))
    before = time.time_ns()
    answer = stub.Tokenize(request_of(chain), metadata=context_of(CALLER))
    after = time.time_ns()
    residues = len(answer.chains[0].tokens)
    steps = -(-sum(answer.chains[0].has_frame) // 64)
    assert steps > 1
    found = shared.awaited(lambda trace: len(trace) == 4 + steps, CALLER)
    (call,) = found.named(f"{SERVICE}/Tokenize")
    assert (call.kind, call.parent_span_id.hex()) == (Span.SPAN_KIND_SERVER, PARENT)
    assert facts(call) == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/Tokenize",
        "rpc.response.status_code": "OK",
        "foldmint.status": "OK",
        "foldmint.model": answer.model,
        "foldmint.codebook_version": answer.codebook_version,
        "foldmint.chains": 1,
        "foldmint.residues": residues,
    }
    stages = found.below(call)
    assert stages.keys() == {"parse", "queue", "compute"}
    parse, queue, compute = stages["parse"], stages["queue"], stages["compute"]
    assert ordered(before, call.start_time_unix_nano, parse.start_time_unix_nano, parse.end_time_unix_nano)
    assert ordered(parse.end_time_unix_nano, queue.start_time_unix_nano, queue.end_time_unix_nano)
    assert queue.end_time_unix_nano == compute.start_time_unix_nano
    assert ordered(compute.start_time_unix_nano, compute.end_time_unix_nano, call.end_time_unix_nano, after)
    assert facts(compute) == {"foldmint.steps": steps}
    quantized = found.named("quantize")
    assert {span.parent_span_id for span in quantized} == {compute.span_id}
    for span in quantized:  # of steps that may have been computed side by side
        within = (span.start_time_unix_nano, span.end_time_unix_nano)
        assert ordered(compute.start_time_unix_nano + 1, *within, compute.end_time_unix_nano)
    assert compute.end_time_unix_nano == max(span.end_time_unix_nano for span in quantized)
    (resource,) = {tuple(sorted(one.items())) for one in shared.resources}
    assert {"service.name": "foldmint"}.items() <= dict(resource).items()


def test_each_structure_of_a_stream_is_a_span(
    stub: rpc.TokenizerServiceStub, shared: Collector, chains: list[RealChain]
) -> None:
    trace = "1" * 32
    requests = [request_of(chain) for chain in chains[:3]]
    requests.append(pb.TokenizeRequest(file=pb.StructureFile(content=b"junk")))
    items = (pb.TokenizeStreamRequest(id=10 + i, request=request) for i, request in enumerate(requests))
    answers = {answer.id: answer for answer in stub.TokenizeStream(items, metadata=context_of(trace))}
    found = shared.awaited(lambda trace: bool(trace.named(f"{SERVICE}/TokenizeStream")), trace)
    (call,) = found.named(f"{SERVICE}/TokenizeStream")
    assert facts(call)["rpc.response.status_code"] == "OK"
    structures = {facts(span)["foldmint.id"]: span for span in found.named("structure")}
    assert structures.keys() == {10, 11, 12, 13}
    for number, span in structures.items():
        assert span.parent_span_id == call.span_id
        assert ordered(call.start_time_unix_nano, span.start_time_unix_nano, span.end_time_unix_nano)
        assert span.end_time_unix_nano <= call.end_time_unix_nano
        if number == 13:
            assert facts(span)["foldmint.status"] == "INVALID_ARGUMENT"
            assert found.below(span).keys() == {"parse"}
        else:
            assert facts(span)["foldmint.residues"] == len(answers[int(number)].response.chains[0].tokens)
            assert found.below(span).keys() == {"parse", "queue", "compute"}


def test_what_a_caller_did_wrong_is_recorded(stub: rpc.TokenizerServiceStub, shared: Collector) -> None:
    trace = "2" * 32
    with pytest.raises(grpc.RpcError, match="unknown format"):
        stub.Tokenize(pb.TokenizeRequest(file=pb.StructureFile(content=b"junk")), metadata=context_of(trace))
    with pytest.raises(grpc.RpcError, match="000077"):
        stub.Tokenize(pb.TokenizeRequest(codebook_version="000077"), metadata=context_of(trace))
    found = shared.awaited(lambda trace: len(trace.named(f"{SERVICE}/Tokenize")) == 2, trace)
    calls = {facts(span)["foldmint.status"]: span for span in found.named(f"{SERVICE}/Tokenize")}
    assert calls.keys() == {"INVALID_ARGUMENT", "FAILED_PRECONDITION"}
    for span in calls.values():
        assert [event.name for event in span.events] == ["exception"]
        # By OpenTelemetry's conventions, an error of the server is another thing than one of its caller.
        assert span.status.code == Status.STATUS_CODE_UNSET
    (event,) = calls["INVALID_ARGUMENT"].events
    told = {one.key: one.value.string_value for one in event.attributes}
    assert "unknown format" in told["exception.message"]


def test_a_decoding_and_a_question_are_traced(
    stub: rpc.TokenizerServiceStub, shared: Collector, chains: list[RealChain]
) -> None:
    trace = "3" * 32
    tokens = stub.Tokenize(request_of(chains[0])).chains[0].tokens
    stub.Detokenize(pb.DetokenizeRequest(tokens=tokens), metadata=context_of(trace))
    stub.GetModel(pb.GetModelRequest(), metadata=context_of(trace))
    found = shared.awaited(lambda trace: len(trace) == 5, trace)
    (call,) = found.named(f"{SERVICE}/Detokenize")
    stages = found.below(call)
    assert stages.keys() == {"parse", "queue", "decode"}
    assert stages["queue"].end_time_unix_nano == stages["decode"].start_time_unix_nano
    assert ordered(stages["decode"].start_time_unix_nano, stages["decode"].end_time_unix_nano, call.end_time_unix_nano)
    assert facts(call)["foldmint.residues"] == len(tokens)
    assert len(found.named(f"{SERVICE}/GetModel")) == 1


def test_a_call_that_its_caller_gave_up_is_cancelled(
    traced: RunningServer, stub: rpc.TokenizerServiceStub, shared: Collector, chains: list[RealChain]
) -> None:
    trace = "4" * 32
    longest = pb.TokenizeRequest(
        backbones=pb.Backbones(chains=[request_of(chain).backbones.chains[0] for chain in chains[:60]])
    )
    for number, chain in enumerate(longest.backbones.chains):
        chain.chain = f"C{number}"
    call = stub.Tokenize.future(longest, metadata=context_of(trace))
    wait_until(lambda: metrics_of(traced)["foldmint_requests_in_flight"] >= 1)
    call.cancel()
    found = shared.awaited(lambda trace: bool(trace.named(f"{SERVICE}/Tokenize")), trace)
    (span,) = found.named(f"{SERVICE}/Tokenize")
    assert facts(span)["foldmint.status"] == "CANCELLED"


def test_the_clients_tell_their_callers_trace(
    traced: RunningServer, shared: Collector, data: Path, chains: list[RealChain]
) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("caller")
    one = Backbone(chains[0].coordinates, chains[0].residue_index)

    async def awaited(name: str) -> None:
        async with AsyncClient(traced.address) as client:
            with tracer.start_as_current_span(name):
                await client.tokenize(one)

    with Client(traced.address) as client:
        client.tokenize(one)  # in no span
        with tracer.start_as_current_span("caller") as span:
            client.tokenize(one)
            list(client.tokenize_many([one]))
            asyncio.run(awaited("inner"))
    trace = f"{span.get_span_context().trace_id:032x}"
    found = shared.awaited(lambda trace: len([s for s in trace.spans if s.kind == Span.SPAN_KIND_SERVER]) == 3, trace)
    own = span.get_span_context().span_id.to_bytes(8, "big")
    calls = sorted(
        (span.name.rpartition("/")[2], span.parent_span_id == own)
        for span in found.spans
        if span.kind == Span.SPAN_KIND_SERVER
    )
    # The asyncio client's, in a span of its own.
    assert calls == [("Tokenize", False), ("Tokenize", True), ("TokenizeStream", True)]


def test_what_the_caller_does_not_sample_is_not_sent(
    stub: rpc.TokenizerServiceStub, shared: Collector, chains: list[RealChain]
) -> None:
    unsampled, sampled = "5" * 32, "6" * 32
    stub.Tokenize(request_of(chains[0]), metadata=context_of(unsampled, sampled=False))
    stub.Tokenize(request_of(chains[0]), metadata=context_of(sampled))
    shared.awaited(lambda trace: bool(trace.named(f"{SERVICE}/Tokenize")), sampled)
    assert not [span for span in shared.spans if span.trace_id.hex() == unsampled]


@pytest.mark.slow
def test_a_server_that_stops_sends_what_it_has_and_its_own_end(collector: Collector, chains: list[RealChain]) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_SERVICE_NAME": "folds",
        "OTEL_BSP_SCHEDULE_DELAY": "60000",
    }
    gone = threading.Event()

    def items() -> Iterator[pb.TokenizeStreamRequest]:
        yield pb.TokenizeStreamRequest(id=1, request=request_of(chains[0]))
        gone.wait(60)

    with running_server(environment=environment) as server, stub_of(server) as stub:
        answers = stub.TokenizeStream(items(), metadata=context_of(CALLER))
        next(answers)
        assert not collector.spans
        server.process.terminate()
        with pytest.raises(grpc.RpcError, match="stopping"):
            next(answers)
        gone.set()
        assert server.process.wait(60) == 0
    (call,) = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert (facts(call)["foldmint.status"], call.status.code) == ("UNAVAILABLE", Status.STATUS_CODE_ERROR)
    assert "stopping" in call.status.message
    assert {one["service.name"] for one in collector.resources} == {"folds"}


@pytest.mark.slow
def test_a_collector_that_does_not_answer_holds_up_nothing(collector: Collector, chains: list[RealChain]) -> None:
    collector.open.clear()
    sizes = {"OTEL_BSP_MAX_QUEUE_SIZE": "20", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}
    with running_server("--otlp-endpoint", collector.address, environment={**QUICK, **sizes}) as server:
        with stub_of(server) as stub:
            for _ in range(40):
                stub.Tokenize(request_of(chains[0]), metadata=context_of(CALLER), timeout=120)
        assert not collector.spans
        collector.open.set()
        found = collector.awaited(lambda trace: len(trace) >= 20, CALLER)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    # 200 were made: one batch was under way, and of the others the queue kept the last.
    assert 20 <= len(found) <= 40


@pytest.mark.slow
def test_the_log_names_the_trace(collector: Collector, tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = ("--otlp-endpoint", collector.address, "--log-level", "info")
    with running_server(*arguments, environment=QUICK, log=log) as server, stub_of(server) as stub:
        with pytest.raises(grpc.RpcError, match="unknown format"):
            stub.Tokenize(pb.TokenizeRequest(file=pb.StructureFile(content=b"junk")), metadata=context_of(CALLER))
        (call,) = collector.awaited(lambda trace: bool(trace.named(f"{SERVICE}/Tokenize")), CALLER).named(
            f"{SERVICE}/Tokenize"
        )
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    (refused,) = [entry for entry in entries if entry["event"] == "refused"]
    assert (refused["trace_id"], refused["span_id"]) == (CALLER, call.span_id.hex())


@pytest.mark.slow
def test_a_collector_that_is_not_there_fails_nothing(chains: list[RealChain], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server("--otlp-endpoint", "http://127.0.0.1:9", environment=QUICK, log=log) as server:
        with stub_of(server) as stub:
            answers = [stub.Tokenize(request_of(chain), timeout=120) for chain in chains[:10]]
        assert all(answer.chains[0].tokens for answer in answers)
        began = time.monotonic()
        server.process.terminate()
        assert server.process.wait(60) == 0
        # OpenTelemetry by itself would try for thirty.
        assert time.monotonic() - began < 25
    assert "UNAVAILABLE" in log.read_text()
    assert all(line.startswith("{") for line in log.read_text().splitlines())
