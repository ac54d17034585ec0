"""Why a server cannot be reached, found out by connecting to it without gRPC, and what to do about it."""

import os
import socket
import ssl
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foldmint_client.connection import Tls

_SECONDS = 2.0  # for each step
_DEFAULT_PORT = 443  # gRPC's own
_WRONG_HOST = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_HTTP = b"GET / HTTP/1.1\r\nHost: foldmint\r\nConnection: close\r\n\r\n"
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


def diagnose(target: str, tls: "Tls | None", listen: str = "--listen") -> str | None:
    """What is wrong with a connection, and the option that fixes it; None if this is not known.

    target: as gRPC takes it; only HOST:PORT is looked into, and nothing behind a proxy. listen: the server's option
    that should name the target. Takes a few seconds at most, and sends nothing but TLS handshakes and a GET.
    """
    from foldmint_client.addresses import is_loopback

    proxied = any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES)
    address = _address(target)
    if address is None or (proxied and not is_loopback(target)):
        return None
    try:
        return _connect_fault(*address, listen) or (
            _plain_fault(address, listen) if tls is None else _tls_fault(address, tls, listen)
        )
    except (OSError, ValueError):  # ssl's errors among them
        return None


def connection_fault(error: Exception, target: str, tls: "Tls | None", listen: str) -> str:
    """What went wrong with a call: the diagnosis, if no connection came about and there is one; or what gRPC says."""
    from foldmint_client.errors import DeadlineExceeded, Unavailable

    unreached = isinstance(error, Unavailable | DeadlineExceeded)
    return (diagnose(target, tls, listen) if unreached else None) or " ".join(str(error).split())


def _address(target: str) -> tuple[str, int] | None:
    """Host and port of a target; None for a target that is not HOST:PORT, such as a Unix socket."""
    target = target.removeprefix("dns:").lstrip("/")
    host, colon, port = target.rpartition(":")
    if not colon or target.endswith("]"):
        host, port = target, str(_DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    return (host, int(port)) if port.isdecimal() and host and "/" not in host else None


def _connect_fault(host: str, port: int, listen: str) -> str | None:
    where = f"port {port} of {host}" + (", gRPC's default port" if port == _DEFAULT_PORT else "")
    try:
        socket.create_connection((host, port), _SECONDS).close()
    except socket.gaierror as error:
        return f"the host name {host!r} cannot be resolved ({error.strerror})"
    except ConnectionRefusedError as error:
        return f"nothing listens on {where} ({error.strerror}); is foldmint-server running, and is this its {listen}?"
    except TimeoutError:
        return f"{where} does not respond; check the address, and firewalls on the way"
    except OSError as error:
        return f"{where} cannot be reached ({error.strerror or error})"
    return None


def _plain_fault(address: tuple[str, int], listen: str) -> str | None:
    """What is wrong if the caller did not ask for TLS."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    trusting.set_alpn_protocols(["h2"])
    try:
        with _handshake(address, trusting) as connection:
            if connection.selected_alpn_protocol() == "h2":
                return "the server uses TLS; use --tls, or --tls-ca FILE for an authority of your own"
            return _http_fault("HTTPS", address, listen)
    except OSError:  # ssl.SSLError is one
        return _http_fault("HTTP", address, listen) if _speaks_http(address) else None


def _tls_fault(address: tuple[str, int], tls: "Tls", listen: str) -> str | None:
    """What is wrong if the caller asked for TLS."""
    verifying = ssl.create_default_context(cafile=None if tls.ca is None else os.fspath(tls.ca))
    verifying.set_alpn_protocols(["h2"])
    if tls.certificate is not None and tls.key is not None:
        verifying.load_cert_chain(tls.certificate, tls.key)
    try:
        with _handshake(address, verifying) as connection:
            if connection.selected_alpn_protocol() != "h2":
                return _http_fault("HTTPS", address, listen)
            return _certificate_fault(connection, tls)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _WRONG_HOST:
            return f"the server's certificate is not for {address[0]!r}: {error.verify_message}"
        if error.verify_code == _EXPIRED:
            return "the server's certificate has expired"
        authority = "a public authority" if tls.ca is None else os.fspath(tls.ca)
        return f"the server's certificate was not issued by {authority}; name its authority with --tls-ca FILE"
    except OSError as error:  # ssl.SSLError is one
        if _speaks_http(address):
            return _http_fault("HTTP", address, listen)
        if isinstance(error, TimeoutError):
            return None
        return "the server does not use TLS; leave out --tls, --tls-ca, --tls-certificate and --tls-key"


def _certificate_fault(connection: ssl.SSLSocket, tls: "Tls") -> str | None:
    """What is wrong with the caller's certificate: the server says so after the handshake, or hangs up."""
    try:
        if connection.recv(1):
            return None
    except TimeoutError:
        return None
    except OSError:  # ssl.SSLError is one
        pass
    if tls.certificate is None:
        return "the server requires a client certificate; use --tls-certificate FILE and --tls-key FILE"
    return f"the server does not accept the certificate {os.fspath(tls.certificate)}"


def _http_fault(protocol: str, address: tuple[str, int], listen: str) -> str:
    return (
        f"port {address[1]} speaks {protocol}, not gRPC, as the server's --metrics-listen does; "
        f"use the port of its {listen}"
    )


def _handshake(address: tuple[str, int], context: ssl.SSLContext) -> ssl.SSLSocket:
    """A TLS connection, to be closed. Raises OSError, of which ssl.SSLError is one."""
    connection = socket.create_connection(address, _SECONDS)
    try:
        return context.wrap_socket(connection, server_hostname=address[0])
    except BaseException:
        connection.close()
        raise


def _speaks_http(address: tuple[str, int]) -> bool:
    """Whether a plain HTTP/1 server answers."""
    with closing(socket.create_connection(address, _SECONDS)) as connection:
        connection.sendall(_HTTP)
        return connection.recv(7) == b"HTTP/1."
