"""Passwords of /metrics and the page, over TLS too: on the real small HTTP server."""

import base64
import hashlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from prometheus_client import CollectorRegistry, Gauge
from typer.testing import CliRunner

from foldmint_server.cli.main import app as command
from foldmint_server.metrics.exposition import metrics_app
from foldmint_server.security.basic_auth import InvalidPasswords, Passwords, read_passwords, require_basic_auth
from foldmint_server.security.bearer_tokens import digest_of
from foldmint_server.security.file_reload import ReloadedFile
from foldmint_server.web import http_server
from foldmint_server.web.http_server import WebServer

CA = trustme.CA()
PASSWORDS = Passwords((("prometheus", digest_of("long and random")), ("ann", digest_of("pass:word"))))


@contextmanager
def served(passwords: ReloadedFile[Passwords] | None = None, *, tls: bool = False) -> Iterator[int]:
    """A server on a free port."""
    registry = CollectorRegistry()
    Gauge("a", "A gauge.", registry=registry).set(7)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("localhost").configure_cert(context)
    app = require_basic_auth(metrics_app(registry), passwords or (lambda: PASSWORDS))
    server = WebServer("127.0.0.1", 0, app, lambda: context if tls else None)
    server.start()
    yield server.server_port
    server.stop()


def asked(
    port: int, header: str | None, method: str = "GET", path: str = "/metrics"
) -> tuple[int, dict[str, str], str]:
    """Status, headers and content of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={} if header is None else {"Authorization": header})
    answer = connection.getresponse()
    found = (answer.status, dict(answer.getheaders()), answer.read().decode())
    connection.close()
    return found


def basic(name: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def test_who_knows_a_password_is_answered() -> None:
    with served() as port:
        for header in (basic("prometheus", "long and random"), basic("ann", "pass:word").replace("Basic", "bASIC")):
            status, _, content = asked(port, header)
            assert status == 200
            assert "a 7.0" in content


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic !",
        "Basic =",
        "Basic \xff",
        basic("prometheus", ""),
        basic("prometheus", "pass:word"),
        basic("ann", "long and random"),
        basic("", ""),
        basic("prometheus", digest_of("long and random").hex()),
        "Bearer " + base64.b64encode(b"prometheus:long and random").decode(),
        basic("prometheus", "long and random") + "x" * 2000,
    ],
)
def test_nobody_else_is(header: str | None) -> None:
    with served() as port:
        for method, path in (
            ("GET", "/metrics"),
            ("GET", "/"),
            ("GET", "/nothing"),
            ("HEAD", "/metrics"),
            ("PUT", "/"),
        ):
            status, headers, content = asked(port, header, method, path)
            assert status == 401
            assert headers["WWW-Authenticate"].startswith('Basic realm="foldmint"')
            assert content == ("" if method == "HEAD" else "401 Unauthorized\n")


def test_the_file(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text(f"# who reads\n\nann:{hashlib.sha256(b'long').hexdigest()}\n  bob:{'0' * 64}\n")
    passwords = read_passwords(file)
    assert passwords.matches("ann", "long")
    assert not passwords.matches("bob", "long")
    assert "ann" not in repr(passwords)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ann:hunter2\n", "line 1: expected NAME:SHA256"),
        (f"ann:{'0' * 64}\nhunter2 {'0' * 64}\n", "line 2: a name is"),
        (f"ann:{'0' * 64}\nann:{'1' * 64}\n", "line 2: duplicate name"),
        ("ann", "line 1: expected NAME:SHA256"),
        ("", "holds 0 passwords"),
        ("#" * (2**16 + 1), "is larger"),
        ("".join(f"n{number}:{'0' * 64}\n" for number in range(101)), "holds 101 passwords"),
    ],
    ids=["plain", "no name", "twice", "no hash", "empty", "large", "many"],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "passwords"
    file.write_text(text)
    with pytest.raises(InvalidPasswords, match=message) as caught:
        read_passwords(file)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(InvalidPasswords, match="No such file"):
        read_passwords(tmp_path / "absent")


def test_the_command_and_a_file_that_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    first = CliRunner().invoke(command, ["password", "ann", "--file", str(file)]).stdout.strip()
    reloading = ReloadedFile("passwords", lambda: read_passwords(file))
    with served(reloading) as port:
        assert asked(port, basic("ann", first))[0] == 200
        other = CliRunner().invoke(command, ["password", "bob", "--file", str(file)]).stdout.strip()
        second = CliRunner().invoke(command, ["password", "ann", "--file", str(file)]).stdout.strip()
        assert file.stat().st_mode & 0o777 == 0o600
        assert asked(port, basic("ann", second))[0] == 401
        reloading.check()
        assert [asked(port, basic(*one))[0] for one in (("ann", first), ("ann", second), ("bob", other))] == [
            401,
            200,
            200,
        ]
        file.write_text("broken")
        reloading.check()
        assert asked(port, basic("ann", second))[0] == 200


def test_a_handshake_is_bounded_in_time_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", 0.3)
    trusting = ssl.create_default_context(cadata=CA.cert_pem.bytes().decode())
    with served(tls=True) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as silent:
        connection = http.client.HTTPSConnection("localhost", port, timeout=60, context=trusting)
        connection.sock = trusting.wrap_socket(
            socket.create_connection(("127.0.0.1", port)), server_hostname="localhost"
        )
        connection.request("GET", "/metrics", headers={"Authorization": basic("ann", "pass:word")})
        assert connection.getresponse().status == 200
        connection.close()
        assert silent.recv(100) == b""  # the server has hung up
        until = time.monotonic() + 60
        while any("process_request_thread" in one.name for one in threading.enumerate()):
            assert time.monotonic() < until
            time.sleep(0.01)
