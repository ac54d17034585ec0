"""What a connection may be told, and what is refused before anything is sent."""

import json
from typing import Any

import pytest

from foldmint_client import InvalidOptions, Retry, Tls
from foldmint_client.addresses import is_loopback
from foldmint_client.connection import Connection


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "LOCALHOST",
        "127.0.0.1:50051",
        "127.8.9.1",
        "[::1]:50051",
        "::1",
        "ipv4:127.0.0.1:50051",
        "ipv4:127.0.0.1:1,127.0.0.2:2",
        "ipv6:[::1]:50051",
        "ipv6:%5B::1%5D:50051",
        "dns:localhost:50051",
        "dns:///localhost:50051",
        "dns://8.8.8.8/localhost:50051",
        "unix:/run/foldmint.sock",
        "unix-abstract:foldmint",
    ],
)
def test_this_machine(target: str) -> None:
    assert is_loopback(target)
    assert Connection(target, token="s3cret").metadata() == (("authorization", "Bearer s3cret"),)  # noqa: S106


@pytest.mark.parametrize(
    "target",
    [
        "example.org:50051",
        "10.0.0.1:50051",
        "0.0.0.0:50051",
        "[2001:db8::1]:50051",
        "localhost.example.org:50051",
        "127.0.0.1.example.org:50051",
        "ipv4:127.0.0.1:1,10.0.0.1:2",
        "dns:///example.org:50051",
        "dns://127.0.0.1/example.org:50051",
        "unixish.example.org:50051",
    ],
)
def test_a_token_does_not_leave_this_machine_in_the_clear(target: str) -> None:
    with pytest.raises(InvalidOptions, match="in the clear"):
        Connection(target, token="s3cret")  # noqa: S106
    assert Connection(target, tls=Tls(), token="s3cret").token == "s3cret"  # noqa: S105, S106


def test_a_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Connection("localhost").metadata() == ()
    monkeypatch.setenv("FOLDMINT_TOKEN", "s3cret\n")
    assert Connection("localhost").metadata() == (("authorization", "Bearer s3cret"),)
    assert Connection("localhost", token="other").token == "other"  # noqa: S105, S106
    assert "s3cret" not in repr(Connection("localhost"))
    with pytest.raises(InvalidOptions, match="FOLDMINT_TOKEN") as caught:
        Connection("example.org:1")
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("FOLDMINT_TOKEN", "")
    assert Connection("example.org:1").token is None


def test_a_token_is_not_printed() -> None:
    assert "s3cret" not in repr(Connection("localhost", token="s3cret"))  # noqa: S106


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": float("inf")},
        {"timeout": float("nan")},
        {"max_message_bytes": 0},
        {"max_message_bytes": 2**31},
        {"keepalive": 0},
        {"token": ""},
        {"token": "two words"},
        {"token": "line\nbreak"},
        {"token": "ümlaut"},
    ],
)
def test_options_that_cannot_be_taken(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        Connection("localhost:1", **options)
    with pytest.raises(InvalidOptions):
        Connection("")


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": 6},
        {"refused_attempts": 0},
        {"initial_backoff": 0},
        {"initial_backoff": 9.0},
        {"maximum_backoff": float("inf")},
        {"multiplier": 0.5},
    ],
)
def test_retries_that_cannot_be_made(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        Retry(**options)


def test_half_a_pair_of_certificate_and_key() -> None:
    with pytest.raises(InvalidOptions, match="go together"):
        Tls(certificate="cert.pem")


def test_backoff_grows_to_its_maximum() -> None:
    retry = Retry(initial_backoff=1, maximum_backoff=5, multiplier=2)
    assert [retry.backoff(failures, 0.5) for failures in (1, 2, 3, 4, 500)] == [1, 2, 4, 5, 5]
    assert retry.backoff(1, 0) == pytest.approx(0.8)
    assert retry.backoff(1, 1) == pytest.approx(1.2)


def test_channel_arguments() -> None:
    arguments = dict(Connection("localhost:1", max_message_bytes=5, channel_options=[("x", 1)]).channel_arguments())
    assert arguments["grpc.max_send_message_length"] == arguments["grpc.max_receive_message_length"] == 5
    assert arguments["x"] == 1
    assert arguments["grpc.enable_http_proxy"] == 0
    (method,) = json.loads(str(arguments["grpc.service_config"]))["methodConfig"]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert method["retryPolicy"]["maxAttempts"] == 5
    far = dict(Connection("example.org:1", retry=Retry(attempts=1)).channel_arguments())
    assert "grpc.enable_http_proxy" not in far
    assert "retryPolicy" not in str(far["grpc.service_config"])
