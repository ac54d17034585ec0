"""TLS of the server's listeners: certificate, key and the callers' authority, from files that may change meanwhile.

Established connections keep what they began with; each new one gets what was read last.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from foldmint_server.security.file_reload import ReloadedFile

_FILE_BYTES = 2**20


class InvalidTls(ValueError):
    """Files of TLS that cannot be used. The message names the file and what is wrong, and nothing that stands in it."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the server's certificate, with those between it and its authority after it, and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class ServerPair:
    """What the files hold. expires: when the first of the certificates does, in seconds since 1970. context: of the
    standard library's TLS, for HTTP.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    expires: float
    context: ssl.SSLContext = field(repr=False, compare=False)


@dataclass(frozen=True)
class Authority:
    """Certificates that callers' certificates must come from. expires: when the last of them does."""

    certificates: bytes
    expires: float


@dataclass(frozen=True)
class WebCertificate:
    """The same for /metrics and the page. authority: of those who ask; None if they need no certificate."""

    pair: ServerPair
    authority: Authority | None

    @property
    def context(self) -> ssl.SSLContext:
        """Of the standard library's TLS."""
        return self.pair.context


def read_web_certificate(files: TlsFiles, callers: Path | None) -> WebCertificate:
    """Certificate and key; callers: an authority whose certificates callers must have. Raises InvalidTls."""
    pair, authority = read_pair(files), None if callers is None else read_authority(callers)
    if authority is not None:
        pair.context.load_verify_locations(cadata=authority.certificates.decode("ascii", "ignore"))
        pair.context.verify_mode = ssl.CERT_REQUIRED
    return WebCertificate(pair, authority)


def read_pair(files: TlsFiles) -> ServerPair:
    """Certificate and key, which fit together. Raises InvalidTls."""
    certificate, key = _content(files.certificate), _content(files.key)
    found = _certificates(certificate, files.certificate)
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidTls(f"{files.key} holds no private key in PEM") from None
    except TypeError:
        raise InvalidTls(f"{files.key} is encrypted; the server needs a key without a password") from None
    if private.public_key() != found[0].public_key():
        raise InvalidTls(f"{files.key} is not the key of the first certificate in {files.certificate}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key, "")
    except (OSError, ssl.SSLError) as error:
        raise InvalidTls(f"{files.certificate}: {getattr(error, 'reason', None) or 'cannot be used'}") from None
    if (certificate, key) != (_content(files.certificate), _content(files.key)):
        raise InvalidTls(f"{files.certificate} or {files.key} changed while they were read")
    return ServerPair(certificate, key, min(_ends(one) for one in found), context)


def read_authority(path: Path) -> Authority:
    """The certificates of an authority. Raises InvalidTls."""
    content = _content(path)
    return Authority(content, max(_ends(one) for one in _certificates(content, path)))


def server_credentials(
    pair: ReloadedFile[ServerPair], authority: ReloadedFile[Authority] | None
) -> grpc.ServerCredentials:
    """gRPC's credentials, which follow the files. authority: callers need its certificates; None: they need none."""

    def current() -> tuple[ServerPair, Authority | None]:
        return pair(), None if authority is None else authority()

    def configuration(now: tuple[ServerPair, Authority | None]) -> grpc.ServerCertificateConfiguration:
        own, callers = now
        roots = None if callers is None else callers.certificates
        return grpc.ssl_server_certificate_configuration([(own.key, own.certificate)], roots)

    given = current()

    def fetched() -> Any:  # noqa: ANN401 (gRPC's stubs know of no None)
        """Asked at each handshake: what is new; None if nothing is."""
        nonlocal given
        now = current()
        if now == given:
            return None
        given = now
        return configuration(now)

    made: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        configuration(given), fetched, require_client_authentication=authority is not None
    )
    return made


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidTls(f"{path}: {error.strerror or error}") from None
    if len(content) > _FILE_BYTES:
        raise InvalidTls(f"{path} is larger than {_FILE_BYTES} bytes")
    return content


def _certificates(content: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise InvalidTls(f"{path} holds no certificates in PEM") from None


def _ends(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()
