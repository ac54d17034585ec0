"""What the commands say when a real server cannot be reached as asked: the cause, and the option that mends it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner

from foldmint_client.cli.main import app
from foldmint_maintenance.cli.main import app as maintenance
from helpers.support import RunningServer, running_server


@dataclass(frozen=True)
class Files:
    """PEM files: two authorities, certificates of the first for localhost and for another host, with their keys."""

    ca: Path
    other_ca: Path
    certificate: Path
    key: Path
    stranger: Path
    stranger_key: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    own, other = trustme.CA(), trustme.CA()
    paths = Files(*(folder / name for name in ("ca", "other-ca", "certificate", "key", "stranger", "stranger-key")))
    own.cert_pem.write_to_path(str(paths.ca))
    other.cert_pem.write_to_path(str(paths.other_ca))
    for authority, certificate, key in (
        (own, paths.certificate, paths.key),
        (other, paths.stranger, paths.stranger_key),
    ):
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
    return paths


@pytest.fixture(scope="module")
def plain() -> Iterator[RunningServer]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def secure(files: Files) -> Iterator[RunningServer]:
    """TLS on both gRPC listeners and on /metrics; the admin listener requires a client certificate."""
    with running_server(
        *("--tls-server-certificate", str(files.certificate), "--tls-server-key", str(files.key)),
        *("--admin-tls-client-ca", str(files.ca), "--metrics-tls"),
    ) as server:
        yield server


def error_of(*arguments: str, code: int = 3) -> str:
    """What a command prints on standard error: one line."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result.stderr


def by_name(address: str) -> str:
    return f"localhost:{address.rpartition(':')[2]}"


def info(address: str, *options: str) -> str:
    return error_of("info", "--server", address, "--attempts", "1", "--timeout", "5", *options)


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    expected = f"error: cannot connect to 127.0.0.1:{port}: nothing listens on port {port} of 127.0.0.1"
    assert info(f"127.0.0.1:{port}").startswith(expected)
    assert "is foldmint-server running, and is this its --listen?" in info(f"127.0.0.1:{port}")
    assert "its --admin-listen?" in error_of("usage", "--admin", f"127.0.0.1:{port}", "--attempts", "1")


def test_an_unknown_host() -> None:
    assert "the host name 'nowhere.invalid' cannot be resolved" in info("nowhere.invalid:50051")


def test_the_metrics_port(plain: RunningServer, secure: RunningServer, files: Files) -> None:
    port = plain.metrics.rpartition(":")[2]
    expected = f"port {port} speaks HTTP, not gRPC, as the server's --metrics-listen does; use the port of its --listen"
    assert expected in info(plain.metrics)
    assert expected in info(by_name(plain.metrics), "--tls-ca", str(files.ca))
    assert "speaks HTTPS, not gRPC" in info(by_name(secure.metrics), "--tls-ca", str(files.ca))
    assert "speaks HTTPS, not gRPC" in info(by_name(secure.metrics))


def test_the_other_grpc_port(plain: RunningServer) -> None:
    assert "--admin is the server's --admin-listen" in error_of("usage", "--admin", plain.address)


def test_tls_that_the_caller_forgot(secure: RunningServer) -> None:
    assert "the server uses TLS; use --tls, or --tls-ca FILE for an authority of your own" in info(secure.address)


def test_tls_that_the_server_does_not_use(plain: RunningServer, files: Files) -> None:
    for options in (["--tls"], ["--tls-ca", str(files.ca)]):
        assert "the server does not use TLS; leave out --tls" in info(by_name(plain.address), *options)


def test_an_authority_that_is_not_trusted(secure: RunningServer, files: Files) -> None:
    expected = "the server's certificate was not issued by"
    assert f"{expected} a public authority; name its authority with --tls-ca" in info(by_name(secure.address), "--tls")
    assert f"{expected} {files.other_ca}" in info(by_name(secure.address), "--tls-ca", str(files.other_ca))


def test_a_certificate_of_another_host(secure: RunningServer, files: Files) -> None:
    assert "the server's certificate is not for '127.0.0.1'" in info(secure.address, "--tls-ca", str(files.ca))


def test_a_client_certificate_that_is_missing_or_wrong(secure: RunningServer, files: Files) -> None:
    command = ("usage", "--admin", by_name(secure.admin), "--attempts", "1", "--tls-ca", str(files.ca))
    expected = "the server requires a client certificate; use --tls-certificate FILE and --tls-key FILE"
    assert expected in error_of(*command)
    stranger = ("--tls-certificate", str(files.stranger), "--tls-key", str(files.stranger_key))
    assert f"the server does not accept the certificate {files.stranger}" in error_of(*command, *stranger)
    own = ("--tls-certificate", str(files.certificate), "--tls-key", str(files.key))
    assert CliRunner().invoke(app, [*command, *own]).exit_code == 0


@pytest.mark.parametrize("scheme", ["http", "HTTPS", "grpc"])
def test_a_url_instead_of_an_address(scheme: str) -> None:
    for command, option in ((["info", "--server"], "--server"), (["usage", "--admin"], "--admin")):
        told = error_of(*command, f"{scheme}://localhost:50051/", code=2)
        assert f"Invalid value for {option}: target is HOST:PORT" in told
        assert f"not a URL: localhost:50051 instead of {scheme}://" in told


def test_a_server_that_does_not_respond() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert info(address).startswith(f"error: cannot connect to {address}: ")


def test_an_address_with_a_resolver(plain: RunningServer) -> None:
    assert CliRunner().invoke(app, ["info", "--server", f"dns:///{by_name(plain.address)}"]).exit_code == 0


def test_the_maintenance_command_says_the_same(plain: RunningServer, secure: RunningServer, files: Files) -> None:
    def told(address: str, *options: str) -> str:
        done = CliRunner().invoke(maintenance, ["usage", "--servers", address, *options])
        assert done.exit_code == 1
        return done.stderr

    assert "the server uses TLS; use --tls, or --tls-ca FILE" in told(by_name(secure.address))
    assert "speaks HTTP, not gRPC" in told(by_name(plain.metrics))
    assert "was not issued by" in told(by_name(secure.address), "--tls-ca", str(files.other_ca))
    typed = CliRunner().invoke(maintenance, ["usage", "--servers", f"http://{plain.admin}"])
    assert typed.exit_code == 2
    assert "not a URL" in typed.stderr


def test_so_do_commands_that_wait_for_servers(plain: RunningServer, secure: RunningServer, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert CliRunner().invoke(maintenance, ["init", "--store", str(store)]).exit_code == 0
    servers = f"{by_name(secure.address)},{by_name(plain.metrics)}"
    command = ["codebooks", "activate", "000001", "--store", str(store), "--servers", servers, "--timeout", "1"]
    done = CliRunner().invoke(maintenance, command)
    assert done.exit_code == 5
    assert "the server uses TLS; use --tls, or --tls-ca FILE" in done.stderr
    assert "speaks HTTP, not gRPC" in done.stderr


def test_grpc_adds_no_lines_of_its_own(secure: RunningServer, files: Files) -> None:
    command = [sys.executable, "-m", "foldmint_client", "info", "--server", by_name(secure.address), "--attempts", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    done = subprocess.run(
        [*command, "--tls-ca", str(files.other_ca)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1, done.stderr
