"""What guards a server, as its settings say: files that it cannot begin with, and what it tells of who can reach it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from prometheus_client import CollectorRegistry

from foldmint_server.metrics.registry import create_metrics
from foldmint_server.security.file_reload import ReloadedFile, check_periodically
from foldmint_server.security.setup import Security, SecurityError, is_loopback
from foldmint_server.settings import Settings, read_settings


def security(**given: Any) -> Security:
    registry = CollectorRegistry()
    return Security(Settings(**given), create_metrics(registry))


def logged(**given: Any) -> list[tuple[str, str]]:
    """What is announced: level, and what is lacking or said."""
    guards = security(**given)
    with structlog.testing.capture_logs() as lines:
        guards.log_setup()
    return [(line["log_level"], line.get("lacking", line["event"])) for line in lines]


@pytest.fixture
def pem(tmp_path: Path) -> dict[str, str]:
    """Settings of TLS."""
    own = trustme.CA().issue_cert("localhost")
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "certificate.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (tmp_path / "key.pem").chmod(0o600)
    return {
        "tls_server_certificate": str(tmp_path / "certificate.pem"),
        "tls_server_key": str(tmp_path / "key.pem"),
    }


CLEAR, ALL, READ = "TLS: what is sent can be read on its way", "tokens: all may call", "passwords: all may read"


def test_without_settings_it_listens_on_loopback_and_says_so() -> None:
    assert logged() == [("info", "listens on loopback only: other machines cannot reach it")]
    settings = read_settings({}, None)
    assert all(map(is_loopback, (settings.listen, settings.admin_listen, settings.metrics_listen)))


def test_of_each_listener_that_others_can_reach_it_tells_what_is_lacking(pem: dict[str, str], tmp_path: Path) -> None:
    everywhere = {"listen": "0.0.0.0:1", "metrics_listen": "[::]:2", "admin_listen": "10.0.0.1:3"}
    (tmp_path / "tokens").write_text("")
    (tmp_path / "passwords").write_text(f"ann:{'0' * 64}")
    for name in ("tokens", "passwords"):
        (tmp_path / name).chmod(0o600)
    tokens, passwords = {"tokens_file": str(tmp_path / "tokens")}, {"metrics_auth": str(tmp_path / "passwords")}
    both, no_password = f"{CLEAR}; {ALL}", f"{CLEAR}; {READ}"
    assert logged(**everywhere) == [("warning", both), ("warning", no_password), ("warning", both)]
    assert logged(listen="example.org:1", **tokens) == [("warning", CLEAR)]
    assert logged(**everywhere, **pem, **tokens) == [("warning", no_password)]
    assert logged(**everywhere, **pem, **tokens, **passwords, metrics_tls=True) == []
    assert logged(insecure_admin=True)[-1] == (
        "warning",
        "anyone who reaches the admin listener may exchange the codebook",
    )


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.168.1.1:1", False),
        ("host.example.org:1", False),
        ("localhost.example.org:1", False),
    ],
)
def test_what_is_loopback(address: str, own: bool) -> None:
    assert is_loopback(address) is own


@pytest.mark.parametrize("name", ["tokens_file", "metrics_auth", "tls_client_ca", "admin_tls_client_ca"])
def test_it_does_not_begin_with_files_that_cannot_be_used(name: str, pem: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    with pytest.raises(SecurityError, match="file: No such file"):
        security(**pem, **{name: str(file)})
    file.write_text("hunter2")
    with pytest.raises(SecurityError, match="file") as caught:
        security(**pem, **{name: str(file)})
    assert "hunter2" not in str(caught.value)


def test_it_does_not_begin_with_a_key_of_another(pem: dict[str, str]) -> None:
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(pem["tls_server_key"])
    with pytest.raises(SecurityError, match="is not the key"):
        security(**pem)


async def test_what_cannot_be_looked_at_stops_nothing() -> None:
    looks, thrice = iter(range(3)), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Broken:
        def check(self) -> None:
            raise RuntimeError("a fault of ours")

    class Well:
        def check(self) -> None:
            if next(looks, None) is None:
                loop.call_soon_threadsafe(thrice.set)

    looking = asyncio.create_task(check_periodically([Broken(), Well()], 0.01))
    async with asyncio.timeout(60):
        await thrice.wait()
    looking.cancel()


def test_a_value_stays_until_there_is_a_better_one() -> None:
    given: list[int | ValueError] = [1]
    changed: list[int] = []

    def read() -> int:
        if isinstance(given[0], ValueError):
            raise given[0]
        return given[0]

    value = ReloadedFile("a number", read, changed.append)
    for now, kept, events in (
        (1, 1, []),
        (2, 2, ["reloaded"]),
        (ValueError("a"), 2, ["new files cannot be used; the old ones stay in use"]),
        (ValueError("a"), 2, []),
        (ValueError("b"), 2, ["new files cannot be used; the old ones stay in use"]),
        (2, 2, ["the files can be used again"]),
        (ValueError("b"), 2, ["new files cannot be used; the old ones stay in use"]),
        (3, 3, ["the files can be used again", "reloaded"]),
    ):
        given[0] = now
        with structlog.testing.capture_logs() as lines:
            value.check()
        assert (value(), [line["event"] for line in lines]) == (kept, events)
    assert changed == [1, 2, 3]
    given[0] = ValueError("at once")
    with pytest.raises(ValueError, match="at once"):
        ReloadedFile("a number", read)
