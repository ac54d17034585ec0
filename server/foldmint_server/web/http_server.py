"""A small HTTP server: wsgiref's, a thread a connection, with limits on the size and duration of a request.

It speaks TLS if it is given a context. The handshake is done by the connection's thread. Authentication is added by
wrapping the application.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from socketserver import ThreadingMixIn
from typing import IO, Any, cast
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

import structlog

from foldmint_server.security.networks import network_of_host

log = structlog.get_logger(__name__)

# Request line and headers together; browsers send about 1 KiB.
_HEAD_BYTES = 16 * 1024
_HEAD_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
_CONNECTIONS = 64
_CONNECTIONS_PER_PEER = 32
_FULL = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class WebServer(ThreadingMixIn, WSGIServer):
    """Serves an application once started; at most 64 connections at a time, 32 of one address, and 503 to those above.

    Of each connection one request is answered. Its head must come within 10 seconds and 16 KiB, else 408 or 431 says
    so; its body is not read; the answer must be taken within 30 seconds.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        host: str,
        port: int,
        app: WSGIApplication,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        refused: Callable[[str], object] = lambda _peer: None,
    ) -> None:
        """Listen. port 0 takes a free one, then in `server_port`. tls: asked at each connection; None: in the clear.
        refused: is called with the address of each connection that is one too many.

        Raises OSError if the port is not available.
        """
        self._tls, self._refused = tls, refused
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, address = found[0][0], found[0][4]
        self._open: Counter[str] = Counter()  # connections, by network
        self._counting = threading.Lock()
        super().__init__((str(address[0]), port), _Handler)
        self.set_app(app)

    def start(self) -> None:
        """Answer requests, in threads of their own."""
        threading.Thread(target=self.serve_forever, name="web", daemon=True).start()

    def stop(self) -> None:
        """Take no more requests, and close the port."""
        self.shutdown()
        self.server_close()

    def get_request(self) -> tuple[Any, Any]:
        """The next connection; by TLS, its handshake is still to come."""
        connection, address = super().get_request()
        context = self._tls()
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (as socketserver has it)
        """Answer in a thread, if there is room for one more."""
        if not self._enter(client_address):
            self._refused(client_address[0])
            if not isinstance(request, ssl.SSLSocket):  # which would have to shake hands first
                with contextlib.suppress(OSError):
                    request.sendall(_FULL)  # fits the empty buffer of a new connection: it does not wait
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._leave(client_address)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer, in the thread."""
        if isinstance(request, ssl.SSLSocket):
            request.settimeout(_HEAD_SECONDS)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(client_address)

    def _enter(self, client_address: Any) -> bool:  # noqa: ANN401
        """Count a connection, if there is room for it."""
        peer = network_of_host(client_address[0])
        with self._counting:
            if self._open.total() >= _CONNECTIONS or self._open[peer] >= _CONNECTIONS_PER_PEER:
                return False
            self._open[peer] += 1
            return True

    def _leave(self, client_address: Any) -> None:  # noqa: ANN401
        peer = network_of_host(client_address[0])
        with self._counting:
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002
        """Log what went wrong with a connection, in the thread."""
        log.debug("a connection failed", exc_info=True)


class _Answer(ServerHandler):
    server_software = "foldmint"

    def log_exception(self, exc_info: Any) -> None:  # noqa: ANN401
        """Errors of the connection are logged at debug level, others as errors."""
        gone = isinstance(exc_info[1], OSError)
        (log.debug if gone else log.error)("a web request failed", exc_info=exc_info)


class _Handler(WSGIRequestHandler):
    server_version, sys_version = "foldmint", ""
    default_request_version = "HTTP/1.0"  # 0.9 has no status to say what was wrong
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def handle(self) -> None:
        self.raw_requestline, self.requestline, self.request_version, self.command = b"", "", "HTTP/1.0", "GET"
        head = self._head()
        if head is None:
            return
        self.connection.settimeout(_ANSWER_SECONDS)  # of each write in all, also by TLS
        self.rfile.close()
        self.rfile = BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        if not self.parse_request():
            return
        nothing = BytesIO()  # no method that is served has a body
        answer = _Answer(nothing, cast(IO[bytes], self.wfile), self.get_stderr(), self.get_environ(), multithread=True)
        answer.request_handler = self  # type: ignore[attr-defined]  # wsgiref's own way
        answer.run(self.server.get_app())  # type: ignore[attr-defined]

    def _head(self) -> bytes | None:
        """Request line and headers; None if they did not arrive, after an error response."""
        until, head = time.monotonic() + _HEAD_SECONDS, b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            left, room = until - time.monotonic(), _HEAD_BYTES - len(head)
            if room == 0:
                self._refuse(431)
                return None
            if left <= 0:
                self._refuse(408)
                return None
            self.connection.settimeout(left)
            try:
                part = self.connection.recv(room)
            except TimeoutError:
                self._refuse(408)
                return None
            if not part:
                return None
            head += part
        return head

    def _refuse(self, code: int) -> None:
        """Say why, and take a little of what is still coming: a close over unread bytes would drop the answer."""
        self.send_error(code)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(0.2)
            for _ in range(16):
                if not self.connection.recv(64 * 1024):
                    break

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """The standard phrase of the code: a message could repeat what the caller sent."""
        super().send_error(code)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        """Log nothing of what went well."""
