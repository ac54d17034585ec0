"""Who gets /metrics and the page of a real server: by name, password and certificate; and whose files it reads."""

import http.client
import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from foldmint_server.security.bearer_tokens import AccessToken, digest_of, format_tokens
from foldmint_server.security.host_check import is_known_host
from helpers.support import RunningServer, running_server


def status(server: RunningServer, path: str = "/metrics", method: str = "GET", **headers: str) -> int:
    return answer(server, path, method, **headers)[0]


def answer(server: RunningServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(server.metrics, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def refused(server: RunningServer, reason: str, **headers: str) -> float:
    page = answer(server, "/metrics", **headers)[2].decode()
    (line,) = (
        one for one in page.splitlines() if one.startswith(f'foldmint_refused_web_requests_total{{reason="{reason}"')
    )
    return float(line.split()[-1])


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("127.0.0.1:9464", True),
        ("[::1]:9464", True),
        ("localhost", True),
        ("LOCALHOST.:9464", True),
        ("foldmint.localhost:9464", True),
        ("10.1.2.3", True),
        ("metrics.example:443", True),
        ("", True),
        ("attacker.example:9464", False),
        ("127.0.0.1.attacker.example", False),
        ("localhost.attacker.example", False),
        ("x.metrics.example", False),
        ("[::1].attacker.example", False),
    ],
)
def test_names(header: str, known: bool) -> None:
    assert is_known_host(header, {"metrics.example"}) is known


def test_on_loopback_a_foreign_name_is_refused_counted_and_logged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server("--metrics-hosts", "metrics.example", log=log) as server:
        for path in ("/", "/metrics", "/api/usage"):
            assert status(server, path, Host="attacker.example") == 421
            assert status(server, path, Host="metrics.example") == 200
            assert status(server, path) == 200
        assert refused(server, "host") == 3
        head, got = answer(server, "/metrics", "HEAD"), answer(server, "/metrics")
        assert (head[0], head[2]) == (200, b"")
        # Its length may differ by a digit of a counter.
        assert int(head[1]["Content-Length"]) == pytest.approx(len(got[2]), abs=200)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [line for line in lines if line.get("reason") == "host"]
    assert sum(line.get("times", 1) for line in told) == 3
    assert told[0]["peer"] == "127.0.0.1"


def test_on_all_addresses_any_name_will_do_unless_some_are_told() -> None:
    with running_server("--metrics-listen", "0.0.0.0:0") as server:
        local = RunningServer(server.process, server.address, f"127.0.0.1:{server.metrics.rpartition(':')[2]}", "")
        assert status(local, Host="foldmint.monitoring.svc:9464") == 200
    with running_server("--metrics-listen", "0.0.0.0:0", "--metrics-hosts", "foldmint.example") as server:
        local = RunningServer(server.process, server.address, f"127.0.0.1:{server.metrics.rpartition(':')[2]}", "")
        assert status(local, Host="foldmint.example") == 200
        assert status(local, Host="attacker.example") == 421


def test_wrong_passwords_are_counted_and_logged(tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "metrics-auth"
    file.write_text(f"ann:{digest_of('right').hex()}\n")
    file.chmod(0o600)
    right, wrong = "Basic YW5uOnJpZ2h0", "Basic YW5uOndyb25n"
    with running_server("--metrics-auth", str(file), log=log) as server:
        assert status(server) == 401
        assert [status(server, Authorization=wrong) for _ in range(5)] == [401] * 5
        assert status(server, Authorization=right) == 200
        assert refused(server, "wrong_password", Authorization=right) == 5
        assert refused(server, "no_password", Authorization=right) == 1
    text = log.read_text()
    told = [line for line in map(json.loads, text.splitlines()) if line.get("reason") == "wrong_password"]
    assert sum(line.get("times", 1) for line in told) == 5
    assert "wrong" not in text.replace("wrong_password", "")


def test_metrics_may_need_a_certificate(tmp_path: Path) -> None:
    authority, others = trustme.CA(), trustme.CA()
    issued, path = authority.issue_cert("localhost", "127.0.0.1"), {}
    for name in ("certificate", "key", "ca"):
        path[name] = tmp_path / f"{name}.pem"
    path["certificate"].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(path["key"])
    authority.cert_pem.write_to_path(path["ca"])
    arguments = ["--tls-server-certificate", path["certificate"], "--tls-server-key", path["key"], "--metrics-tls"]
    with running_server(*map(str, arguments), "--metrics-tls-client-ca", str(path["ca"])) as server:

        def asked(caller: trustme.CA | None) -> int:
            context = ssl.create_default_context(cafile=path["ca"])
            if caller is not None:
                caller.issue_cert("prometheus@example.org").configure_cert(context)
            connection = http.client.HTTPSConnection(server.metrics, timeout=60, context=context)
            try:
                connection.request("GET", "/metrics")
                return connection.getresponse().status
            finally:
                connection.close()

        assert asked(authority) == 200
        for caller in (None, others):
            with pytest.raises(OSError, match=r"(?i)alert|closed|reset|eof"):
                asked(caller)


def started(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """A server that is not to start."""
    command = [
        sys.executable,
        "-m",
        "foldmint_server.cli",
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "127.0.0.1:0",
    ]
    return subprocess.run(
        [*command, "--admin-listen", "127.0.0.1:0", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("option", ["--tokens-file", "--metrics-auth"])
def test_a_file_that_every_user_can_write_is_refused(tmp_path: Path, option: str) -> None:
    file = tmp_path / "secrets"
    token = AccessToken("alice", digest_of("alice-token"), frozenset({"tokenize"}))
    file.write_text(format_tokens([token]) if option == "--tokens-file" else f"ann:{digest_of('x').hex()}\n")
    file.chmod(0o666)
    ended = started(option, str(file))
    assert ended.returncode == 1
    assert f"chmod o-w {file}" in ended.stderr


def test_a_file_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    file, log = tmp_path / "tokens.toml", tmp_path / "log"
    file.write_text(format_tokens([AccessToken("alice", digest_of("alice-token"), frozenset({"tokenize"}))]))
    for mode, may in ((0o644, "read by every user"), (0o660, "written by its group"), (0o600, "")):
        file.chmod(mode)
        log.write_text("")
        with running_server("--tokens-file", str(file), log=log):
            pass
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        told = [line for line in lines if line["event"] == "a file of secrets is open to others"]
        assert [line["may_be"] for line in told] == ([may] if may else [])
