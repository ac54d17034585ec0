"""/metrics as a web application: what prometheus-client makes of it, but for the hits of codes, which it is slow at.

Thousands of series that differ in one number are written in one go; the rest is left to the library. The interpreter's
lock is held only briefly, so requests hardly wait: `benchmarks scrape` measures both.
"""

import gzip
from collections.abc import Iterable, Iterator
from functools import cache
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from foldmint_server.metrics.code_usage import CodeHits

_OPEN_METRICS = "application/openmetrics-text"
_END = b"# EOF\n"
_LEVEL = 1  # of gzip: a few kilobytes more than at the library's 9, in a thirtieth of the time


def metrics_app(registry: CollectorRegistry) -> WSGIApplication:
    """The application, for whatever address it is put at; formats and gzip as `prometheus_client.make_wsgi_app`."""
    library = make_wsgi_app(registry)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or environ.get("QUERY_STRING"):
            answer: Iterable[bytes] = library(environ, start_response)
            return answer
        encoder, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        others = _Others(registry)
        body = encoder(others)
        if others.hits is not None:
            body = _joined(body, others.hits, content_type)
        headers = [("Content-Type", content_type)]
        if gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
            body = gzip.compress(body, _LEVEL)
            headers.append(("Content-Encoding", "gzip"))
        start_response("200 OK", headers)
        return (body,)

    return app


class _Others(Collector):
    """All of a registry but the hits; hits: these, once all were collected."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.hits: CodeHits | None = None

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            if isinstance(metric, CodeHits):
                self.hits = metric
            else:
                yield metric


def _joined(others: bytes, hits: CodeHits, content_type: str) -> bytes:
    """An exposition and the hits after it."""
    total, open_metrics = f"{hits.name}_total", content_type.startswith(_OPEN_METRICS)
    name = hits.name if open_metrics else total
    lines = [f"# HELP {name} {hits.documentation}", f"# TYPE {name} {hits.type}"]
    values = hits.counts.tolist()
    lines += [f"{start}{value}.0" for start, value in zip(_starts(total, len(values)), values, strict=True)]
    own = "\n".join(lines).encode() + b"\n"
    return others.removesuffix(_END) + own + _END if open_metrics else others + own


@cache
def _starts(name: str, codes: int) -> list[str]:
    return [f'{name}{{code="{code}"}} ' for code in range(codes)]
