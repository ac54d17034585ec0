"""The security of the server's listeners, composed from its settings."""

import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from wsgiref.types import WSGIApplication, WSGIEnvironment

import grpc
import structlog

from foldmint_server.metrics.registry import Metrics
from foldmint_server.security.audit_log import AuditLog
from foldmint_server.security.authorization import AuthorizationInterceptor, Authorizer
from foldmint_server.security.basic_auth import read_passwords, require_basic_auth
from foldmint_server.security.bearer_tokens import read_tokens
from foldmint_server.security.expiry import ExpiryWarnings
from foldmint_server.security.file_permissions import exposure
from foldmint_server.security.file_reload import Checked, ReloadedFile, check_periodically
from foldmint_server.security.host_check import require_host
from foldmint_server.security.rate_limit import ResidueRateLimiter
from foldmint_server.security.tls import (
    Authority,
    ServerPair,
    TlsFiles,
    WebCertificate,
    read_authority,
    read_pair,
    read_web_certificate,
    server_credentials,
)
from foldmint_server.security.token_metrics import TokenMetrics
from foldmint_server.security.token_use import TokenUse, use_file_of
from foldmint_server.settings import Settings

log = structlog.get_logger(__name__)
T = TypeVar("T")


class SecurityError(RuntimeError):
    """Files of tokens, passwords or TLS that the server cannot start with."""


class Security:
    """Reads the files that settings name; `run` keeps looking at them.

    rates: of callers. interceptors: of both gRPC listeners. Raises SecurityError if a file cannot be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._checked: list[Checked] = []
        expiry = ExpiryWarnings("certificate", lambda which, when: metrics.certificate_expiry.labels(which).set(when))
        self._token_metrics = TokenMetrics(metrics, settings.max_caller_names)
        try:
            tokens = self._read("tokens", settings.tokens_file, read_tokens, self._token_metrics.record)
            self._passwords = self._read("passwords of /metrics", settings.metrics_auth, read_passwords)
            self._pair = self._certificate(expiry)
            self._callers = self._authority("client_ca", settings.tls_client_ca, expiry)
            self._web = self._web_certificate(expiry)
            self._operators = self._authority("admin_client_ca", settings.admin_tls_client_ca, expiry) or self._callers
        except ValueError as error:
            raise SecurityError(str(error)) from error
        self._checked += [expiry, self._token_metrics]
        self._token_use = None
        if tokens is not None:
            path = Path(settings.token_use_file) if settings.token_use_file else use_file_of(Path(settings.tokens_file))
            self._token_use = TokenUse(path, tokens, self._token_metrics.used)
            self._checked.append(self._token_use)
        self.rates = ResidueRateLimiter(limited=metrics.rejects.labels("rate").inc)
        access = Authorizer(
            tokens,
            settings.anonymous_scopes,
            insecure_admin=settings.insecure_admin,
            used=(lambda _: None) if self._token_use is None else self._token_use.note,
        )
        self.interceptors = [AuthorizationInterceptor(access, AuditLog(), self._refused)]

    @property
    def needs_token(self) -> bool:
        """Whether callers need a token to tokenize."""
        return bool(self._settings.tokens_file) and "tokenize" not in self._settings.anonymous_scopes

    def bind(self, server: grpc.aio.Server, address: str, *, admin: bool) -> int:
        """Let a server listen at HOST:PORT, by TLS where there is a certificate; returns the port."""
        if self._pair is None:
            return server.add_insecure_port(address)
        credentials = server_credentials(self._pair, self._operators if admin else self._callers)
        return server.add_secure_port(address, credentials)

    def protect(self, app: WSGIApplication) -> WSGIApplication:
        """The application of the metrics' port, limited to its host names and, if set, to passwords."""
        if self._passwords is not None:
            app = require_basic_auth(app, self._passwords, self._web_refused)
        names = [name for name in self._settings.metrics_hosts.split(",") if name]
        if not names and not is_loopback(self._settings.metrics_listen):
            return app
        return require_host(app, names, lambda environ: self._web_refused(environ, "host"))

    def web_tls(self) -> ssl.SSLContext | None:
        """The context of a new connection to the metrics' port; None for no TLS."""
        return None if self._web is None else self._web().context

    def web_connection_refused(self, peer: str) -> None:
        """Count and log a connection to the metrics' port that is one too many."""
        self._web_refused({"REMOTE_ADDR": peer}, "connections")

    def log_setup(self) -> None:
        """Log who can reach the server, and warn about listeners without protection."""
        settings = self._settings
        listeners = {"listen": settings.listen, "metrics": settings.metrics_listen, "admin": settings.admin_listen}
        open_to_others = {name: address for name, address in listeners.items() if not is_loopback(address)}
        if not open_to_others:
            log.info("listens on loopback only: other machines cannot reach it", **listeners)
        for name, address in open_to_others.items():
            lacking = self._lacking(name)
            if lacking:
                log.warning("others can reach this listener", listener=name, address=address, lacking=lacking)
        for file in (settings.tokens_file, settings.metrics_auth, settings.tls_server_key):
            if file and (exposed := exposure(Path(file))):
                log.warning(
                    "a file of secrets is open to others", file=file, may_be=exposed, remedy=f"chmod 600 {file}"
                )
        if settings.insecure_admin:
            log.warning(
                "anyone who reaches the admin listener may exchange the codebook", address=settings.admin_listen
            )

    def _lacking(self, listener: str) -> str:
        """What a listener that other machines can reach lacks."""
        settings = self._settings
        if listener == "metrics":
            wanted = {
                "TLS: what is sent can be read on its way": settings.metrics_tls,
                "passwords: all may read": bool(settings.metrics_auth),
            }
        else:
            wanted = {
                "TLS: what is sent can be read on its way": bool(settings.tls_server_certificate),
                "tokens: all may call": bool(settings.tokens_file),
            }
        return "; ".join(what for what, there in wanted.items() if not there)

    def _refused(self, status: str, name: str) -> None:
        """Count a call that was not let in."""
        self._metrics.refused_calls.labels(status).inc()
        self._metrics.callers.refused(name, status)

    def _web_refused(self, environ: WSGIEnvironment, reason: str) -> None:
        """Count a request for the page or /metrics that is not answered, and log it, but for a browser's first."""
        self._metrics.refused_web_requests.labels(reason).inc()
        if reason != "no_password":
            log.warning("not let in", throttle=f"web {reason}", reason=reason, peer=environ.get("REMOTE_ADDR", ""))

    async def run(self) -> None:
        """Check the files every `reload_seconds`, until cancelled."""
        await check_periodically(self._checked, self._settings.reload_seconds)

    def close(self) -> None:
        """Write what is kept of the use of tokens."""
        if self._token_use is not None:
            self._token_use.close()

    def _read(
        self, what: str, path: str, read: Callable[[Path], T], changed: Callable[[T], object] = lambda _: None
    ) -> ReloadedFile[T] | None:
        if not path:
            return None
        reloading = ReloadedFile(what, lambda: read(Path(path)), changed)
        self._checked.append(reloading)
        return reloading

    def _certificate(self, expiry: ExpiryWarnings) -> ReloadedFile[ServerPair] | None:
        settings = self._settings
        if not settings.tls_server_certificate:
            return None
        files = TlsFiles(Path(settings.tls_server_certificate), Path(settings.tls_server_key))
        record: Callable[[ServerPair], None] = lambda pair: expiry.record("server", pair.expires)  # noqa: E731
        reloading = ReloadedFile("the server's certificate", lambda: read_pair(files), record)
        self._checked.append(reloading)
        return reloading

    def _web_certificate(self, expiry: ExpiryWarnings) -> ReloadedFile[WebCertificate] | None:
        settings = self._settings
        if not settings.metrics_tls:
            return None
        files = TlsFiles(Path(settings.tls_server_certificate), Path(settings.tls_server_key))
        callers = Path(settings.metrics_tls_client_ca) if settings.metrics_tls_client_ca else None

        def record(web: WebCertificate) -> None:
            if web.authority is not None:
                expiry.record("metrics_client_ca", web.authority.expires)

        reloading = ReloadedFile("the certificate of /metrics", lambda: read_web_certificate(files, callers), record)
        self._checked.append(reloading)
        return reloading

    def _authority(self, which: str, path: str, expiry: ExpiryWarnings) -> ReloadedFile[Authority] | None:
        if not path:
            return None
        record: Callable[[Authority], None] = lambda authority: expiry.record(which, authority.expires)  # noqa: E731
        reloading = ReloadedFile(which, lambda: read_authority(Path(path)), record)
        self._checked.append(reloading)
        return reloading


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches HOST:PORT; False for any name other than localhost."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
