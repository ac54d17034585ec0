"""The web application of the metrics' port: the page, the two JSON addresses that it reads, and /metrics."""

from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import gzip_accepted

from foldmint_server.metrics.exposition import metrics_app
from foldmint_server.web.dashboard.lineage import Lineage
from foldmint_server.web.dashboard.responses import Content
from foldmint_server.web.dashboard.usage_api import SCOPES, Scope, UsageApi

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_HEADERS = [
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-cache"),  # ask each time; an answer that did not change is a few bytes
    ("Vary", "Accept-Encoding"),
]
# By the query; no other is answered.
_SCOPES: Mapping[str, Scope] = {"": "version", **{f"scope={scope}": scope for scope in SCOPES}}
_TEXT = "text/plain; charset=utf-8"


def dashboard_app(registry: CollectorRegistry, numbers: UsageApi, lineage: Lineage) -> WSGIApplication:
    """The application: / and what it loads, /api/usage, /api/codebooks, and /metrics as prometheus-client makes it.

    Only GET and HEAD are served, only these addresses exist, and nothing that was sent comes back in an answer.
    """
    assets = {path: lambda _, content=content: content for path, content in _assets().items()}
    answers: Mapping[str, Callable[[WSGIEnvironment], Content | None]] = {
        **assets,
        "/api/usage": lambda environ: _usage(numbers, environ),
        "/api/codebooks": lambda _: Content.of_json(lineage.as_json()),
    }
    metrics = metrics_app(registry)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def plain(status: str, *headers: tuple[str, str]) -> Iterable[bytes]:
            body = f"{status}\n".encode()
            start_response(status, [("Content-Type", _TEXT), ("Content-Length", str(len(body))), *headers, *_HEADERS])
            return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)

        path = environ["PATH_INFO"]
        if path != "/metrics" and path not in answers:
            return plain("404 Not Found")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return plain("405 Method Not Allowed", ("Allow", "GET, HEAD"))
        if path == "/metrics":
            return _metrics(metrics, environ, start_response)
        content = answers[path](environ)
        if content is None:
            return plain("400 Bad Request")
        return _sent(content, environ, start_response)

    return app


def _usage(numbers: UsageApi, environ: WSGIEnvironment) -> Content | None:
    """None for an invalid query."""
    scope = _SCOPES.get(environ.get("QUERY_STRING", ""))
    return None if scope is None else numbers.content(scope)


def _sent(content: Content, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    headers = [("Content-Type", content.type), ("ETag", content.tag), *_HEADERS]
    if content.tag in (tag.strip().removeprefix("W/") for tag in environ.get("HTTP_IF_NONE_MATCH", "").split(",")):
        start_response("304 Not Modified", headers)
        return ()
    body = content.body
    if content.packed is not None and gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
        body = content.packed
        headers.append(("Content-Encoding", "gzip"))
    start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)


def _metrics(metrics: Callable[..., Any], environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """As prometheus-client answers GET, with its length; HEAD gets the same without the body."""
    begun: list[tuple[str, list[tuple[str, str]]]] = []
    body = b"".join(
        metrics({**environ, "REQUEST_METHOD": "GET"}, lambda status, headers, *_: begun.append((status, headers)))
    )
    ((status, headers),) = begun
    start_response(status, [*headers, ("Content-Length", str(len(body)))])
    return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)


def _assets() -> dict[str, Content]:
    """The page's files, by their addresses."""
    found = {}
    for file in (files("foldmint_server.web.dashboard") / "static").iterdir():
        media_type = _TYPES.get(PurePosixPath(file.name).suffix)
        if media_type is not None:
            found["/" if file.name == "index.html" else f"/page/{file.name}"] = Content.of(
                media_type, file.read_bytes()
            )
    return found
