"""The client of Prometheus' HTTP API, against servers that answer as told: TLS, passwords, redirects, other answers."""

import base64
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import trustme

from foldmint.durations import parse_duration
from foldmint_maintenance.errors import UsageUnknown
from foldmint_maintenance.usage.prometheus_api import Prometheus, matching, read_entry
from helpers.monitoring.real_prometheus import free_port

NOW = json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [7, "7.5"]}}).encode()


@dataclass
class Answering:
    """A server and what it was asked: the form of each query, and the Authorization header."""

    url: str
    forms: list[dict[str, list[str]]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)


@contextmanager
def answering(
    status: int = 200, content: bytes = NOW, *, location: str | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Answering]:
    """A server on a port of its own that gives one answer to every query."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            told.forms.append(parse_qs(form))
            told.authorizations.append(self.headers["Authorization"])
            self.send_response(status)
            if location is not None:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        scheme = "http"
        if tls is not None:
            scheme, server.socket = "https", tls.wrap_socket(server.socket, server_side=True)
        told = Answering(f"{scheme}://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """The PEM file of an authority, and TLS with its certificate of this machine."""
    made, path = trustme.CA(), tmp_path_factory.mktemp("pem") / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.issue_cert("127.0.0.1").configure_cert(context)
    return path, context


@pytest.fixture
def login(tmp_path: Path) -> Path:
    path = tmp_path / "login"
    path.write_text("ann:pass:wörd\n", encoding="utf-8")
    return path


def test_a_query_and_its_time_limit_arrive() -> None:
    with answering() as server:
        assert Prometheus(server.url + "/", timeout=2.5).now() == 7.5
    assert server.forms == [{"query": ["time()"], "timeout": ["2500ms"]}]
    assert server.authorizations == [None]


def test_a_password_goes_over_tls_to_a_server_of_our_authority(
    authority: tuple[Path, ssl.SSLContext], login: Path
) -> None:
    path, context = authority
    with answering(tls=context) as server:
        known = Prometheus(server.url, entry=read_entry(login, path))
        assert known.now() == 7.5
        with pytest.raises(UsageUnknown, match=rf"{server.url} does not answer: .*CERTIFICATE_VERIFY_FAILED"):
            Prometheus(server.url, entry=read_entry(login, None)).now()
    assert server.authorizations == ["Basic " + base64.b64encode("ann:pass:wörd".encode()).decode()]
    assert "wörd" not in repr(known.__dict__)
    assert "wörd" not in repr(read_entry(login, path))


def test_the_authorities_of_the_machine_count(
    authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = authority
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with answering(tls=context) as server:
        assert Prometheus(server.url).now() == 7.5


def test_a_redirect_is_followed_and_another_server_gets_no_password(login: Path) -> None:
    with (
        answering() as other,
        answering(307, b"", location=f"{other.url}/api/v1/query") as server,
    ):
        assert Prometheus(server.url, entry=read_entry(login, None)).now() == 7.5
    assert server.authorizations[0] is not None
    assert other.authorizations == [None]
    assert other.forms == server.forms


def test_redirects_in_a_circle_end() -> None:
    with answering(307, b"", location="/api/v1/query") as server:
        with pytest.raises(UsageUnknown, match=r"does not answer: .*redirects"):
            Prometheus(server.url).now()
        assert len(server.forms) < 50


def test_a_server_that_never_answers_is_left() -> None:

    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(UsageUnknown, match=rf"{url} does not answer: .*timed out"):
            Prometheus(url, timeout=0.2).now()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "begins with neither"),
        ("https://ann:secret@example.org:9090", "at example.org:9090 holds a password"),
        ("http://ann@127.0.0.1", "at 127.0.0.1 holds a password"),
    ],
)
def test_addresses_that_are_rejected(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Prometheus(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://[::1", "http://localhost:x", "http://a b", "http://", "http://\u2603.invalid"])
def test_addresses_where_nobody_answers(url: str) -> None:
    with pytest.raises(UsageUnknown, match="does not answer"):
        Prometheus(url).now()


def test_a_port_where_nobody_listens() -> None:
    with pytest.raises(UsageUnknown, match=r"does not answer: .*refused"):
        Prometheus(f"http://127.0.0.1:{free_port()}").now()


def test_a_password_does_not_travel_in_the_clear(login: Path, authority: tuple[Path, ssl.SSLContext]) -> None:
    with pytest.raises(ValueError, match="in the clear"):
        Prometheus("http://example.org", entry=read_entry(login, None))
    with pytest.raises(ValueError, match="use https"):
        Prometheus("http://localhost", entry=read_entry(None, authority[0]))
    with pytest.raises(ValueError, match="timeout"):
        Prometheus("http://localhost", 0)


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (200, b"<html>", "as no Prometheus does: b'<html>'"),
        (200, b'{"data": []}', "as no Prometheus does"),
        (200, b'{"data": {"resultType": "scalar", "result": [0, "1"]}}', "with a scalar; a vector is wanted"),
        (422, b'{"status": "error", "error": "too many samples"}', "refuses up: too many samples"),
        (503, b"away", "HTTP Error 503"),
        (304, b"", "HTTP Error 304"),
    ],
)
def test_answers_of_something_else(status: int, content: bytes, reason: str) -> None:
    with answering(status, content) as server, pytest.raises(UsageUnknown, match=reason) as caught:
        Prometheus(server.url).at("up", 0.0)
    assert server.url in str(caught.value)


def test_durations() -> None:
    durations = {"7d": 604_800, "1h30m": 5400, "90s": 90, "500ms": 0.5, "2w": 1_209_600, "1y": 31_536_000}
    assert {text: parse_duration(text) for text in durations} == durations
    for text in ("", "7", "d", "7 d", "1.5h", "-1h", "7days", "0s"):
        with pytest.raises(ValueError, match=r"not a duration|longer than 0"):
            parse_duration(text)


def test_labels_are_quoted() -> None:
    assert matching({"b": 'a"\\\n', "a": "é"}) == r'a="é",b="a\"\\\n"'
