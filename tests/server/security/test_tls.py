"""TLS and mutual TLS on a real server, whose files change while it runs."""

import json
import os
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import structlog
import trustme
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_key
from cryptography.x509 import load_pem_x509_certificate
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foldmint.v1 import codebook_pb2, codebook_pb2_grpc, tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_server.security.expiry import ExpiryWarnings
from foldmint_server.security.tls import InvalidTls, TlsFiles, read_authority, read_pair
from foldmint_server.settings import Settings
from helpers.support import RunningServer, running_server

CA, OTHER_CA, OPERATORS_CA = trustme.CA(), trustme.CA(), trustme.CA()
DAY = 86_400.0


def write(folder: Path, leaf: trustme.LeafCert) -> TlsFiles:
    """Put a certificate and its key in the place of what is there, each all at once."""
    files = TlsFiles(folder / "certificate.pem", folder / "key.pem")
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    for path, content in ((files.certificate, chain), (files.key, leaf.private_key_pem.bytes())):
        replace(path, content)
    return files


def replace(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


def end_of(leaf: trustme.LeafCert) -> float:
    return load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).not_valid_after_utc.timestamp()


class TestFiles:
    """What files are taken, and what is said of others, which never holds what stands in them."""

    def test_a_pair(self, tmp_path: Path) -> None:
        leaf = CA.issue_cert("localhost")
        pair = read_pair(write(tmp_path, leaf))
        assert pair.key == leaf.private_key_pem.bytes()
        assert pair.expires == end_of(leaf)
        assert "PRIVATE KEY" not in repr(pair)

    def test_a_key_of_another_certificate(self, tmp_path: Path) -> None:
        files = write(tmp_path, CA.issue_cert("localhost"))
        replace(files.key, CA.issue_cert("localhost").private_key_pem.bytes())
        with pytest.raises(InvalidTls, match=r"key\.pem is not the key of the first certificate"):
            read_pair(files)

    def test_an_encrypted_key_is_not_asked_for_its_password(self, tmp_path: Path) -> None:
        leaf = CA.issue_cert("localhost")
        files = write(tmp_path, leaf)
        key = load_key(leaf.private_key_pem.bytes(), None)
        lock = BestAvailableEncryption(b"password")
        replace(files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
        with pytest.raises(InvalidTls, match="is encrypted"):
            read_pair(files)

    @pytest.mark.parametrize(
        "content",
        [b"", b"hunter2", b"-----BEGIN PRIVATE KEY-----\nhunter2\n", b"#" * (2**20 + 1)],
        ids=["empty", "text", "half", "large"],  # which are part of the path
    )
    def test_what_is_no_pem(self, tmp_path: Path, content: bytes) -> None:
        files = write(tmp_path, CA.issue_cert("localhost"))
        for path in (files.key, files.certificate):
            replace(path, content)
            with pytest.raises(InvalidTls, match=path.name) as caught:
                read_pair(files)
            assert "hunter2" not in str(caught.value)
        with pytest.raises(InvalidTls):
            read_authority(files.certificate)

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidTls, match="No such file"):
            read_pair(TlsFiles(tmp_path / "certificate.pem", tmp_path / "key.pem"))

    def test_of_several_certificates_a_chain_ends_with_its_first_and_an_authority_with_its_last(
        self, tmp_path: Path
    ) -> None:
        soon, later = (
            CA.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=days)) for days in (5, 50)
        )
        both = soon.cert_chain_pems[0].bytes() + later.cert_chain_pems[0].bytes()
        files = write(tmp_path, soon)
        replace(files.certificate, both)
        assert read_pair(files).expires == end_of(soon)
        assert read_authority(files.certificate).expires == end_of(later)


def test_a_certificate_that_ends_soon_is_warned_of_each_day() -> None:
    now = [1e9]
    told: dict[str, float] = {}
    expiry = ExpiryWarnings("certificate", told.__setitem__, lambda: now[0])

    def warned() -> list[tuple[str, str, float]]:
        with structlog.testing.capture_logs() as lines:
            expiry.check()
        return [(line["event"], line["certificate"], line["days"]) for line in lines]

    expiry.record("server", 1e9 + 15 * DAY)
    expiry.record("client_ca", 1e9 + 100 * DAY)
    assert told == {"server": 1e9 + 15 * DAY, "client_ca": 1e9 + 100 * DAY}
    assert warned() == []
    now[0] += 1.5 * DAY
    assert warned() == [("a certificate expires soon", "server", 13.5)]
    now[0] += 0.5 * DAY
    assert warned() == []
    now[0] += 0.5 * DAY
    assert warned() == [("a certificate expires soon", "server", 12.5)]
    now[0] += 13 * DAY
    assert warned() == [("a certificate has expired", "server", -0.5)]
    expiry.record("server", 1e9 + 500 * DAY)
    now[0] += DAY
    assert warned() == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tls_server_certificate": "x"}, "go together"),
        ({"tls_server_key": "x"}, "go together"),
        ({"tls_client_ca": "x"}, "tls_client_ca needs"),
        ({"admin_tls_client_ca": "x"}, "admin_tls_client_ca needs"),
        ({"metrics_tls": True}, "metrics_tls needs"),
        ({"anonymous": "read"}, "goes with tokens_file"),
        ({"anonymous": "admin", "tokens_file": "x"}, "anonymous"),
    ],
)
def test_settings_that_do_not_fit_together(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**given)  # type: ignore[arg-type]


@dataclass
class Secured:
    """A server that speaks TLS, and wants certificates of callers, of another authority from operators."""

    running: RunningServer
    folder: Path
    log: Path

    def lines(self, event: str) -> list[dict[str, str]]:
        return [
            line
            for line in map(json.loads, (one for one in self.log.read_text().splitlines() if one.startswith("{")))
            if line["event"] == event
        ]  # gRPC writes there too

    def channel(
        self, own: trustme.LeafCert | None = None, trusted: trustme.CA = CA, *, admin: bool = False
    ) -> grpc.Channel:
        """A connection of its own."""
        key, chain = (None, None) if own is None else (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
        credentials = grpc.ssl_channel_credentials(trusted.cert_pem.bytes(), key, chain)
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(self.running.admin if admin else self.running.address, credentials, options)

    def answers(self, own: trustme.LeafCert | None = None, trusted: trustme.CA = CA, *, admin: bool = False) -> bool:
        """Whether a caller is answered."""
        with self.channel(own, trusted, admin=admin) as channel:
            stub = tokenizer_pb2_grpc.TokenizerServiceStub(channel)
            try:
                return bool(stub.GetModel(tokenizer_pb2.GetModelRequest(), timeout=30).model)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False

    def metrics(self, trusted: trustme.CA = CA) -> str:
        context = ssl.create_default_context(cadata=trusted.cert_pem.bytes().decode())
        url = f"https://{self.running.metrics.replace('127.0.0.1', 'localhost')}/metrics"
        with urllib.request.urlopen(url, timeout=30, context=context) as answer:
            text: str = answer.read().decode()
        return text


CALLER, OPERATOR = CA.issue_cert("caller@example.org"), OPERATORS_CA.issue_cert("operator@example.org")


@pytest.fixture(scope="module")
def secured(versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    files = write(folder, CA.issue_cert("localhost", "127.0.0.1"))
    CA.cert_pem.write_to_path(str(folder / "ca.pem"))
    OPERATORS_CA.cert_pem.write_to_path(str(folder / "operators.pem"))
    arguments = ["--model", str(versions), "--reload-seconds", "0.1", "--metrics-tls", "--log-level", "info"]
    arguments += ["--tls-server-certificate", str(files.certificate), "--tls-server-key", str(files.key)]
    arguments += ["--tls-client-ca", str(folder / "ca.pem"), "--admin-tls-client-ca", str(folder / "operators.pem")]
    with running_server(*arguments, log=folder / "log") as running:
        yield Secured(running, folder, folder / "log")


def wait_until(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_callers_and_operators_need_certificates_of_their_authority(secured: Secured) -> None:
    assert secured.answers(CALLER)
    assert secured.answers(OPERATOR, admin=True)
    assert not secured.answers(None)
    assert not secured.answers(OPERATOR)
    assert not secured.answers(CALLER, admin=True)
    assert not secured.answers(OTHER_CA.issue_cert("caller@example.org"))
    assert not secured.answers(CALLER, OTHER_CA)
    with grpc.insecure_channel(secured.running.address) as clear, pytest.raises(grpc.RpcError):
        health_pb2_grpc.HealthStub(clear).Check(health_pb2.HealthCheckRequest(), timeout=30)  # type: ignore[attr-defined]


def test_the_audit_line_tells_of_the_certificate(secured: Secured) -> None:
    with secured.channel(OPERATOR, admin=True) as channel:
        stub = codebook_pb2_grpc.CodebookServiceStub(channel)
        stub.ActivateCodebook(codebook_pb2.ActivateCodebookRequest(version="000001"), timeout=60)
    (line,) = secured.lines("admin call")
    assert line["certificate"] == "operator@example.org"
    assert line["name"] == ""


def test_the_page_speaks_tls(secured: Secured) -> None:
    assert "foldmint_ready 1.0" in secured.metrics()
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        secured.metrics(OTHER_CA)
    host, _, port = secured.running.metrics.rpartition(":")
    # Who does not shake hands holds up nobody else.
    with socket.create_connection((host, int(port))) as silent, socket.create_connection((host, int(port))) as clear:
        clear.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"foldmint" not in clear.recv(1000)
        assert "foldmint_ready 1.0" in secured.metrics()
        silent.sendall(b"\x16")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((host, int(port))) as plain, pytest.raises((ssl.SSLError, OSError)):
        old.wrap_socket(plain)


def test_files_change_while_the_server_runs(secured: Secured) -> None:
    """A new authority's certificate, broken files, another authority of callers: each without a restart."""
    expiry = 'foldmint_certificate_expiry_timestamp_seconds{certificate="server"}'

    def ends(trusted: trustme.CA) -> float:
        (line,) = [line for line in secured.metrics(trusted).splitlines() if line.startswith(expiry)]
        return float(line.split()[-1])

    kept = secured.channel(CALLER)
    stub = tokenizer_pb2_grpc.TokenizerServiceStub(kept)
    assert stub.GetModel(tokenizer_pb2.GetModelRequest(), timeout=30).model == "versions"

    soon = OTHER_CA.issue_cert("localhost", "127.0.0.1", not_after=datetime.now(UTC) + timedelta(days=5))
    write(secured.folder, soon)
    wait_until(lambda: secured.answers(CALLER, OTHER_CA))
    assert not secured.answers(CALLER, CA)
    assert secured.answers(OPERATOR, OTHER_CA, admin=True)
    assert ends(OTHER_CA) == end_of(soon)
    (line,) = secured.lines("a certificate expires soon")
    assert 4.9 < float(line["days"]) <= 5
    # A connection goes on with what it began with.
    assert stub.GetModel(tokenizer_pb2.GetModelRequest(), timeout=30).model == "versions"
    kept.close()

    broken = "new files cannot be used; the old ones stay in use"

    def broken_files() -> set[str]:
        return {Path(line["reason"].split()[0]).name for line in secured.lines(broken)}

    replace(secured.folder / "key.pem", b"no key")
    wait_until(lambda: broken_files() == {"key.pem"})
    replace(secured.folder / "ca.pem", b"no certificate")
    wait_until(lambda: broken_files() == {"key.pem", "ca.pem"})
    assert secured.answers(CALLER, OTHER_CA)
    assert ends(OTHER_CA) == end_of(soon)

    write(secured.folder, CA.issue_cert("localhost", "127.0.0.1"))
    replace(secured.folder / "ca.pem", OTHER_CA.cert_pem.bytes())
    wait_until(lambda: secured.answers(OTHER_CA.issue_cert("caller@example.org"), CA))
    assert not secured.answers(CALLER)
    assert 'foldmint_certificate_expiry_timestamp_seconds{certificate="admin_client_ca"}' in secured.metrics()
    assert os.fspath(secured.folder) in secured.lines(broken)[0]["reason"]
