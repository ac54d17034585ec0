"""The HTTP server under the page: what strangers may send, and for how long they may hold on."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from foldmint_server.web import http_server


@contextmanager
def serving(body: bytes = b"ok") -> Iterator[tuple[str, int]]:
    """A web server of one answer; its address."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/broken":
            raise RuntimeError("a secret")
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    server = http_server.WebServer("127.0.0.1", 0, app)
    server.start()
    try:
        yield "127.0.0.1", server.server_port
    finally:
        server.stop()


def sent(address: tuple[str, int], data: bytes) -> bytes:
    """All that comes back for some bytes."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def test_a_head_that_is_too_long_is_refused() -> None:
    with serving() as address:
        assert sent(address, b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 431 ")
        many = b"".join(b"X-%d: y\r\n" % number for number in range(150))
        assert sent(address, b"GET / HTTP/1.1\r\n" + many + b"\r\n").startswith(b"HTTP/1.0 431 ")
        most = b"GET / HTTP/1.1\r\nX: " + b"y" * 15_000 + b"\r\n\r\n"
        assert sent(address, most).endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("line", [b"<script>alert(1)</script>", b"GET / HTTP/9<b>.1", b"GET / x y z", b"\xff\xfe\x00"])
def test_nonsense_is_refused_and_not_repeated(line: bytes) -> None:
    with serving() as address:
        answer = sent(address, line + b"\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.0 400 Bad Request\r\n", b"HTTP/1.0 505 HTTP Version Not Supported\r\n"))
    assert body in (b"400 Bad Request\n", b"505 HTTP Version Not Supported\n")


def test_a_head_that_comes_too_slowly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where bytes keep coming: the time is that of the whole head."""
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", 0.4)
    with serving() as address:
        began = time.monotonic()
        assert sent(address, b"GET / HT").startswith(b"HTTP/1.0 408 ")
        with socket.create_connection(address, timeout=10) as connection:
            answer = b""
            stopped = threading.Event()

            def drip() -> None:
                while not stopped.wait(0.1):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

            dripping = threading.Thread(target=drip)
            dripping.start()
            answer = connection.recv(100)
            stopped.set()
            dripping.join()
        assert answer.startswith(b"HTTP/1.0 408 ")
        assert time.monotonic() - began < 3


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_CONNECTIONS", 3)
    with serving() as address:
        idle = [socket.create_connection(address) for _ in range(3)]
        # Accepted after them, in the order of their connecting.
        assert sent(address, b"").startswith(b"HTTP/1.0 503 ")
        for connection in idle:
            connection.close()
        until = time.monotonic() + 5
        while b"200 OK" not in (answer := sent(address, b"GET / HTTP/1.1\r\n\r\n")) and time.monotonic() < until:
            time.sleep(0.05)
        assert answer.endswith(b"ok")


def test_a_fault_is_no_ones_business() -> None:
    with serving() as address:
        answer = sent(address, b"GET /broken HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 500 ")
        assert b"secret" not in answer
        assert sent(address, b"GET / HTTP/1.1\r\n\r\n").endswith(b"ok")


def test_ipv6() -> None:
    try:
        server = http_server.WebServer("::1", 0, lambda *_: [])
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    server.start()
    server.stop()
