"""The web application of the metrics' port, over HTTP: what it answers, what it refuses, and what it bounds."""

import gzip
import json
import re
import select
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from foldmint.v1 import codebook_pb2
from helpers.chains import RealChain
from helpers.support import ROOT, RunningServer, admin_of, metrics_of, running_server, stub_of
from helpers.traffic import streamed
from helpers.waiting import wait_until

STATIC = ROOT / "server/foldmint_server/web/dashboard/static"


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


def asked(address: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """The answer of HOST:PORT, errors too. headers: with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{address}{path}", method=method, headers=named)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def told(address: str, scope: str = "") -> dict[str, Any]:
    """What /api/usage tells, once it is newer than the second for which an answer is kept."""
    time.sleep(1.1)
    value: dict[str, Any] = json.loads(asked(address, f"/api/usage?scope={scope}" if scope else "/api/usage").body)
    return value


def hits_of(server: RunningServer) -> list[float]:
    metrics = metrics_of(server)
    return [metrics[f'foldmint_code_hits_total{{code="{code}"}}'] for code in range(4096)]


@pytest.fixture(scope="module")
def counting(chains: list[RealChain]) -> Iterator[RunningServer]:
    """A server that has tokenized real chains; its tests only look."""
    with running_server() as server, stub_of(server) as stub:
        streamed(stub, chains[:20])
        yield server


def test_numbers_are_those_of_the_metrics(counting: RunningServer) -> None:
    metrics, usage = metrics_of(counting), told(counting.metrics, "start")
    assert sum(usage["hits"]) > 1000
    assert usage["hits"] == hits_of(counting)
    assert usage["hits"] == told(counting.metrics)["hits"] == told(counting.metrics, "window")["hits"]
    window = usage["window"]
    assert window["residues"] == metrics["foldmint_window_residues"] == sum(usage["hits"])
    assert window["utilization"] == metrics["foldmint_code_utilization_ratio"]
    assert window["perplexity"] == pytest.approx(metrics["foldmint_code_perplexity"])
    assert window["dead"] is None  # as the metric's NaN: too few residues
    assert window["seconds"] == 3600
    labels = f'model="{usage["model"]}",version="{usage["codebook"]["version"]}"'
    assert metrics[f'foldmint_codebook_info{{digest="{usage["codebook"]["digest"]}",{labels}}}'] == 1
    assert usage["codebook"]["activated"] == metrics["foldmint_codebook_activated_timestamp_seconds"]


def test_traffic_is_that_of_the_metrics(counting: RunningServer) -> None:
    metrics = metrics_of(counting)
    residues = sum(metrics[f'foldmint_residues_total{{frame="{frame}"}}'] for frame in ("yes", "no"))

    def sampled() -> float:
        """Residues of all samples, or less: between two of them are the seconds of the interval, or more."""
        traffic = told(counting.metrics)["traffic"]
        return float(sum(traffic["residues_per_second"]) * traffic["interval"])

    wait_until(lambda: sampled() > 0)
    assert sampled() <= 1.01 * residues
    traffic = told(counting.metrics)["traffic"]
    assert (traffic["structures"], traffic["residues"]) == (20, residues)
    assert 0 < traffic["latency"]["p50"] <= traffic["latency"]["p99"] < 60
    assert traffic["in_flight"] == traffic["queued_residues"] == 0


@pytest.fixture(scope="module")
def swapped(versions_copy: Path, short: list[RealChain]) -> Iterator[RunningServer]:
    """A server of eight versions that has tokenized chains under the first, and two of them under the third."""
    with (
        running_server("--model", str(versions_copy), "--poll-seconds", "0") as server,
        stub_of(server) as stub,
        admin_of(server) as admin,
    ):
        streamed(stub, short)
        admin.ActivateCodebook(codebook_pb2.ActivateCodebookRequest(version="000003"))
        streamed(stub, short[:2])
        yield server


def test_each_scope_counts_what_it_says(swapped: RunningServer, short: list[RealChain]) -> None:
    start, version, window = (told(swapped.metrics, scope) for scope in ("start", "version", "window"))
    after = sum(len(chain.sequence) for chain in short[:2])
    assert start["hits"] == hits_of(swapped)
    assert sum(start["hits"]) == sum(len(chain.sequence) for chain in short) + after
    assert sum(version["hits"]) == sum(window["hits"]) == after
    assert version["codebook"]["version"] == "000003"
    assert version["since"] == version["codebook"]["activated"] > start["since"] == start["started"]
    assert window["since"] is None


def test_lineage(swapped: RunningServer) -> None:
    lineage = json.loads(asked(swapped.metrics, "/api/codebooks").body)
    assert lineage["store"] is True
    versions = {version["version"]: version for version in lineage["versions"]}
    assert list(versions) == [f"{number:06d}" for number in range(8, 0, -1)]
    assert [name for name, version in versions.items() if version["active"]] == ["000003"]
    assert [name for name, version in versions.items() if version["kept"]] == ["000003", "000001"]
    assert [version["parent"] for version in versions.values()] == [*(f"{n:06d}" for n in range(7, 0, -1)), None]
    assert versions["000003"]["activated"] > versions["000001"]["activated"]
    assert versions["000002"]["activated"] is None


def test_metrics_are_served_as_before(counting: RunningServer) -> None:
    plain = asked(counting.metrics, "/metrics")
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    packed = asked(counting.metrics, "/metrics", Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 5
    series = re.compile(rb"^foldmint_code_hits_total\{.*$", re.MULTILINE)
    assert series.findall(gzip.decompress(packed.body)) == series.findall(plain.body)
    assert len(series.findall(plain.body)) == 4096
    accept = "application/openmetrics-text; version=1.0.0"
    opened = asked(counting.metrics, "/metrics", Accept=accept)
    assert opened.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert opened.body.endswith(b"# EOF\n")
    restricted = asked(counting.metrics, "/metrics?name[]=foldmint_batches_total").body.decode()
    assert [line.split()[0] for line in restricted.splitlines() if line[0] != "#"] == ["foldmint_batches_total"]


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/style.css", "/page/icon.svg", "/api/codebooks"])
def test_what_did_not_change_is_not_sent_again(counting: RunningServer, path: str) -> None:
    first = asked(counting.metrics, path)
    assert first.status == 200
    again = asked(counting.metrics, path, If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    packed = asked(counting.metrics, path, Accept_Encoding="gzip")
    body = gzip.decompress(packed.body) if packed.headers["Content-Encoding"] == "gzip" else packed.body
    assert body == first.body
    bare = asked(counting.metrics, path, "HEAD")
    assert (bare.status, bare.body) == (200, b"")
    assert bare.headers["Content-Length"] == str(len(first.body))


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/metrics/",
        "/favicon.ico",
        "/page/",
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page//etc/passwd",
        "/api",
        "/index.html",
        "/%00",
    ],
)
def test_what_does_not_exist_is_not_found(counting: RunningServer, path: str) -> None:
    answer = asked(counting.metrics, path)
    assert (answer.status, answer.body) == (404, b"404 Not Found\n")


@pytest.mark.parametrize("query", ["scope=", "scope=all", "scope=start&scope=start", "x=<script>", "scope=start&x=1"])
def test_questions_that_make_no_sense(counting: RunningServer, query: str) -> None:
    answer = asked(counting.metrics, f"/api/usage?{query}")
    assert (answer.status, answer.body) == (400, b"400 Bad Request\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/api/usage"])
def test_only_get_and_head(counting: RunningServer, method: str, path: str) -> None:
    answer = asked(counting.metrics, path, method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/api/usage", "/nothing<b>"])
def test_browsers_are_told_to_be_strict(counting: RunningServer, path: str) -> None:
    answer = asked(counting.metrics, path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "Python" not in str(answer.headers)
    assert "b>" not in answer.body.decode() or path == "/"


def test_the_page_has_all_that_it_needs() -> None:
    """No script or style within the markup, which the policy forbids, and nothing from elsewhere."""
    markup = (STATIC / "index.html").read_text()
    assert re.findall(r"<style|\son\w+=|\sstyle=|<script(?![^>]*\ssrc=)", markup) == []
    for file in STATIC.iterdir():
        addresses = set(re.findall(r"https?://[^\s\"')]+|//[\w.]+\.\w{2,}", file.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, file
    loaded = set(re.findall(r'(?:href|src)="page/([^"]+)"', markup))
    for module in STATIC.glob("*.js"):
        loaded |= set(re.findall(r'from "\./([^"]+)"', module.read_text()))
    assert loaded == {file.name for file in STATIC.iterdir()} - {"index.html"}


def test_answers_that_idle_callers_leave_do_not_stop_others(counting: RunningServer) -> None:
    """The gRPC service and other callers of the page go on beside connections that say nothing."""
    host, _, port = counting.metrics.rpartition(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(30)]
    assert asked(counting.metrics, "/api/usage").status == 200
    # And did not wait until those were hung up on.
    assert select.select(idle, [], [], 0)[0] == []
    for connection in idle:
        connection.close()


def test_a_store_that_is_gone_and_metrics_without_codes(versions: Path, tmp_path: Path, short: list[RealChain]) -> None:
    """What is in memory is still told, and so are the hits, which are counted though no scrape shows them."""
    store = tmp_path / "store"
    shutil.copytree(versions, store)
    options = ("--model", str(store), "--poll-seconds", "0", "--code-metrics", "off")
    with running_server(*options) as server, stub_of(server) as stub:
        (store / "model.json").unlink()
        lineage = json.loads(asked(server.metrics, "/api/codebooks").body)
        assert sum(told(server.metrics)["hits"]) == 0
        sent = streamed(stub, short)
        assert sum(told(server.metrics)["hits"]) == sent
        assert not any(name.startswith("foldmint_code_hits") for name in metrics_of(server))
    assert lineage["store"] is False
    assert [version["version"] for version in lineage["versions"]] == ["000001"]
    assert lineage["versions"][0]["stored"] is False
