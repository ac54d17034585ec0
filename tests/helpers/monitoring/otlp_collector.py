"""A real collector of OpenTelemetry's spans, over OTLP and gRPC, for tests."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collected
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as collecting
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(collecting.TraceServiceServicer):
    """Keeps the spans it is sent. open: cleared, it does not answer."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self.address = ""
        self.open = threading.Event()
        self.open.set()

    def Export(self, request: collected.ExportTraceServiceRequest, context: grpc.ServicerContext) -> object:  # noqa: N802
        self.open.wait(60)
        if not context.is_active():  # the sender has given up on these
            return collected.ExportTraceServiceResponse()
        for part in request.resource_spans:
            self.resources.append({one.key: one.value.string_value for one in part.resource.attributes})
            self.spans += [span for scope in part.scope_spans for span in scope.spans]
        return collected.ExportTraceServiceResponse()

    def awaited(self, enough: Callable[["Trace"], bool], trace: str, seconds: float = 20) -> "Trace":
        """The spans of a trace, once they are enough."""
        until = time.monotonic() + seconds
        while not enough(found := Trace([span for span in self.spans if span.trace_id.hex() == trace])):
            assert time.monotonic() < until, f"only {[span.name for span in found.spans]} came"
            time.sleep(0.05)
        return found


class Trace:
    """Spans of one trace."""

    def __init__(self, spans: list[Span]) -> None:
        self.spans = spans

    def __len__(self) -> int:
        return len(self.spans)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def below(self, parent: Span) -> dict[str, Span]:
        """The spans right below one, by name."""
        return {span.name: span for span in self.spans if span.parent_span_id == parent.span_id}


def facts(span: Span) -> dict[str, str | int]:
    return {
        one.key: one.value.string_value if one.value.HasField("string_value") else one.value.int_value
        for one in span.attributes
    }


def ordered(*times: int) -> bool:
    return list(times) == sorted(times)


@contextmanager
def collector_running() -> Iterator[Collector]:
    collector = Collector()
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        collecting.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
        collector.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield collector
        finally:
            collector.open.set()
            server.stop(None).wait()
