"""The HTTP server under the page: what strangers may send, and for how long they may hold on."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import trustme

from foldmint_server.web import http_server
from helpers.waiting import wait_until


@contextmanager
def serving(
    body: bytes = b"ok",
    tls: Callable[[], ssl.SSLContext | None] = lambda: None,
    refused: Callable[[str], object] = lambda _peer: None,
) -> Iterator[tuple[str, int]]:
    """A web server of one answer; its address."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/broken":
            raise RuntimeError("a secret")
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    server = http_server.WebServer("127.0.0.1", 0, app, tls, refused)
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
        assert time.monotonic() - began < 9


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_CONNECTIONS", 3)
    with serving() as address:
        idle = [socket.create_connection(address) for _ in range(3)]
        # Accepted after them, in the order of their connecting.
        assert sent(address, b"").startswith(b"HTTP/1.0 503 ")
        for connection in idle:
            connection.close()
        wait_until(lambda: sent(address, b"GET / HTTP/1.1\r\n\r\n").endswith(b"ok"))


def test_connections_of_one_address_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_CONNECTIONS_PER_PEER", 2)
    refused: list[str] = []
    with serving(refused=refused.append) as address:
        idle = [socket.create_connection(address) for _ in range(2)]
        assert sent(address, b"").startswith(b"HTTP/1.0 503 ")
        assert refused == ["127.0.0.1"]
        other = socket.create_connection(address, timeout=10, source_address=("127.0.0.2", 0))
        with other:
            other.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert other.recv(1000).startswith(b"HTTP/1.0 200 ")
        for connection in idle:
            connection.close()
        wait_until(lambda: sent(address, b"GET / HTTP/1.1\r\n\r\n").endswith(b"ok"))


@pytest.mark.parametrize("tls", [True, False])
def test_an_answer_that_is_taken_too_slowly_is_broken_off(monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    """Also where some of it is taken all the time."""
    monkeypatch.setattr(http_server, "_ANSWER_SECONDS", 1.0)
    authority, body = trustme.CA(), b"x" * 2**26
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    with serving(body, (lambda: server_context) if tls else (lambda: None)) as address, ExitStack() as stack:
        connection: socket.socket = stack.enter_context(socket.create_connection(address, timeout=10))
        if tls:
            connection = stack.enter_context(client_context.wrap_socket(connection, server_hostname=address[0]))
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        began, taken = time.monotonic(), 0
        with suppress(OSError):  # an end, or a reset
            while time.monotonic() - began < 60 and (part := connection.recv(2**14)):
                taken += len(part)
                time.sleep(0.002)  # so that all of it would take ten seconds and more
        assert taken < len(body)
        assert time.monotonic() - began < 60


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
