"""Which names /metrics and the page may be asked for by: a web site must not read them through a visitor's browser.

A site can let its own name resolve to 127.0.0.1 (DNS rebinding); the browser then sends that name as `Host`.
"""

import ipaddress
from collections.abc import Callable, Collection, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_LONGEST = 300


def require_host(
    app: WSGIApplication, names: Collection[str], refused: Callable[[WSGIEnvironment], object]
) -> WSGIApplication:
    """The application, for requests whose `Host` is an address, localhost, below it, or one of `names`; others get 421.

    refused: called for these.
    """
    known = {name.lower() for name in names}

    def checked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if is_known_host(environ.get("HTTP_HOST", ""), known):
            return app(environ, start_response)
        refused(environ)
        body = b"421 Misdirected Request: the name is none of --metrics-hosts\n"
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        start_response("421 Misdirected Request", headers)
        return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)

    return checked


def is_known_host(header: str, names: Collection[str]) -> bool:
    """Whether a `Host` header, which may be empty, is an address, localhost, or one of these names in lower case."""
    if not header:
        return True  # browsers always send one
    host = header[:_LONGEST].strip().lower()
    bare, colon, port = host.rpartition(":")
    if colon and port.isdecimal():
        host = bare
    host = host.rstrip(".")
    if host == "localhost" or host.endswith(".localhost") or host in names:
        return True
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
