"""What /metrics writes by itself is what prometheus-client would write, in every format that is asked for."""

import gzip
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import WSGIApplication

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

from foldmint_server.metrics.code_usage import CodeHits, CodeMetrics, CodeUsage
from foldmint_server.metrics.exposition import metrics_app
from foldmint_server.metrics.registry import create_metrics

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
Parse = Callable[[str], Iterable[Any]]


def registry_of(shown: CodeMetrics = "full") -> CollectorRegistry:
    registry, usage = CollectorRegistry(), CodeUsage(4096, 60, lambda: 0.0, shown)
    registry.register(usage)
    create_metrics(registry)
    usage.activate("1", 0.0)
    codes = np.random.default_rng(0).integers(0, 4000, 20_000)
    usage.record("1", codes, np.ones(len(codes), np.float32))
    # From a million on, the library writes numbers otherwise.
    usage.record("1", np.full(3_456_789, 7), np.ones(3_456_789, np.float32))
    return registry


def answer(app: WSGIApplication, accept: str | None, **environ: str) -> tuple[str, dict[str, str], bytes]:
    """Status, headers and body."""
    began: list[tuple[str, dict[str, str]]] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
        began.append((status, dict(headers)))
        return lambda _: None

    asked = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", **environ}
    if accept is not None:
        asked["HTTP_ACCEPT"] = accept
    body = b"".join(app(asked, start))
    ((status, headers),) = began
    return status, headers, body


@pytest.mark.parametrize("shown", ["full", "summary"])
@pytest.mark.parametrize(
    ("accept", "parse"),
    [
        (None, text_string_to_metric_families),
        ("text/plain", text_string_to_metric_families),
        ("text/plain; version=1.0.0; escaping=allow-utf-8", text_string_to_metric_families),
        ("application/openmetrics-text", open_metrics_families),
        (PROMETHEUS, open_metrics_families),
    ],
)
def test_all_formats_are_as_the_library_writes_them(accept: str | None, parse: Parse, shown: CodeMetrics) -> None:
    registry = registry_of(shown)
    ours, theirs = (answer(app(registry), accept) for app in (metrics_app, make_wsgi_app))
    assert ours[:2] == theirs[:2]
    found, expected = ({family.name: family for family in parse(text.decode())} for text in (ours[2], theirs[2]))
    assert found == expected
    assert ("foldmint_code_hits" in found) == (shown == "full")


def test_it_is_packed_where_that_is_asked_for() -> None:
    app = metrics_app(registry_of())
    _, headers, body = answer(app, PROMETHEUS, HTTP_ACCEPT_ENCODING="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == answer(app, PROMETHEUS)[2]
    assert gzip.decompress(body).endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "environ",
    [
        {"QUERY_STRING": "name[]=foldmint_code_hits_total"},
        {"QUERY_STRING": "name[]=foldmint_ready&name[]=foldmint_codebook_codes"},
        {"REQUEST_METHOD": "OPTIONS"},
        {"REQUEST_METHOD": "POST"},
    ],
)
def test_all_else_is_left_to_the_library(environ: dict[str, str]) -> None:
    registry = registry_of()
    ours, theirs = (answer(app(registry), "text/plain", **environ) for app in (metrics_app, make_wsgi_app))
    assert ours == theirs


def test_samples_of_hits_are_made_of_the_counts() -> None:
    family = CodeHits(np.array([3, 0]))
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"code": "0"}, 3.0), ({"code": "1"}, 0.0)]
    with pytest.raises(TypeError, match="made of the counts"):
        family.samples = list(family.samples)
