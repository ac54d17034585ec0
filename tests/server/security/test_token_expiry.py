"""Tokens that end, and when each was last used: on real servers, and as `foldmint-server tokens` tells it."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import structlog
from typer.testing import CliRunner, Result

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.cli.main import app
from foldmint_server.security.authorization import AccessDenied, Authorizer
from foldmint_server.security.bearer_tokens import (
    AccessToken,
    AccessTokens,
    InvalidTokenFile,
    digest_of,
    format_tokens,
    parse_tokens,
    read_tokens,
)
from foldmint_server.security.token_use import InvalidUseFile, TokenUse, read_last_use
from helpers.chains import RealChain
from helpers.support import metrics_of, request_of, running_server, stub_of
from helpers.waiting import wait_until

TOKENIZE = "/foldmint.v1.TokenizerService/Tokenize"
SOON = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def token(name: str, expires: datetime | None = None) -> AccessToken:
    return AccessToken(name, digest_of(f"{name}-token"), frozenset({"tokenize"}), None, expires)


def bearer(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {name}-token"),)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["tokens", *arguments])


def test_a_token_ends_at_its_time() -> None:
    now = [SOON.timestamp() - 1]
    used = []
    access = Authorizer(
        lambda: AccessTokens((token("alice", SOON), token("bob"))),
        used=lambda one: used.append(one.name),
        clock=lambda: now[0],
    )
    assert access.authorize(TOKENIZE, "Bearer alice-token").name == "alice"
    now[0] += 1
    with pytest.raises(AccessDenied, match=r"the token 'alice' expired at 2030-01-02T03:04:05Z; ask") as caught:
        access.authorize(TOKENIZE, "Bearer alice-token")
    assert (caught.value.code, caught.value.name) == (grpc.StatusCode.UNAUTHENTICATED, "alice")
    assert access.authorize(TOKENIZE, "Bearer bob-token").name == "bob"
    assert used == ["alice", "bob"]  # refused ones are not used


def test_what_is_written_of_expiry_is_read() -> None:
    some = (token("a", SOON), token("b", SOON.astimezone()), token("c"))
    text = format_tokens(some)
    assert text.count("expires = 2030-01-02T03:04:05Z\n") == 2
    assert parse_tokens(text).tokens == some
    entry = format_tokens([token("a")])
    for wrong in ("2030-01-02", "2030-01-02T03:04:05", '"2030-01-02T03:04:05Z"', "1893553445"):
        with pytest.raises(InvalidTokenFile, match=r"line 1 \(a\): expires (must be a date|needs a time zone)"):
            parse_tokens(f"{entry}expires = {wrong}\n")


def test_a_server_refuses_what_has_expired(tmp_path: Path, short: list[RealChain]) -> None:
    """In calls and in streams that are open; and tells of it in time."""
    file, log = tmp_path / "tokens.toml", tmp_path / "log"
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    file.write_text(format_tokens([token("alice", ends), token("bob"), token("carol", ends + timedelta(days=99))]))
    arguments = ["--tokens-file", str(file), "--reload-seconds", "0.1"]
    request = request_of(short[0])

    def requests() -> Iterator[pb.TokenizeStreamRequest]:
        for number in range(100_000):
            yield pb.TokenizeStreamRequest(id=number, request=request)
            time.sleep(0.02)

    with running_server(*arguments, log=log) as server, stub_of(server) as stub:
        shown = metrics_of(server)
        gauges = {name: value for name, value in shown.items() if "token_expiry" in name}
        assert gauges == {
            'foldmint_token_expiry_timestamp_seconds{token="alice"}': ends.timestamp(),
            'foldmint_token_expiry_timestamp_seconds{token="carol"}': ends.timestamp() + 99 * 86_400,
        }
        stream = stub.TokenizeStream(requests(), metadata=bearer("alice"), timeout=120)
        assert next(stream).response.chains
        stub.Tokenize(request, metadata=bearer("alice"))
        part = file.with_suffix(".part")
        part.write_text(format_tokens([token("alice", datetime.now(UTC) + timedelta(seconds=1)), token("bob")]))
        part.replace(file)
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Tokenize(request, metadata=bearer("alice"))
        for error in (ended.value, caught.value):
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert re.fullmatch(r"the token 'alice' expired at [0-9T:-]+Z; ask .*", error.details() or "")
        stub.Tokenize(request, metadata=bearer("bob"))
        wait_until(lambda: sum("token_expiry" in name for name in metrics_of(server)) == 1)
        assert metrics_of(server)['foldmint_caller_refusals_total{caller="alice",status="UNAUTHENTICATED"}'] == 2
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["token"] for line in lines if line["event"] == "a token expires soon"][:1] == ["alice"]
    assert "alice-token" not in log.read_text()


def rows(listed: str) -> dict[str, list[str]]:
    """Of the list: the columns, by the first."""
    return {cells[0]: cells[1:] for cells in (re.split(r"  +", line) for line in listed.splitlines())}


def test_the_list_shows_expiry_and_last_use(tmp_path: Path, short: list[RealChain]) -> None:
    """Of two servers that share the file, at once and one after another."""
    file = tmp_path / "tokens.toml"
    at = ("--file", str(file))
    for name, expires in (("alice", ["--expires", "90d"]), ("bob", []), ("carol", ["--expires", "2099-12-31"])):
        (tmp_path / name).write_text(command("create", name, "--scope", "tokenize", *expires, *at).stdout)
    request = request_of(short[0])

    def asked(stub: object, name: str) -> None:
        metadata = (("authorization", f"Bearer {(tmp_path / name).read_text().strip()}"),)
        stub.Tokenize(request, metadata=metadata)  # type: ignore[attr-defined]

    began = time.time()
    unused = command("list", *at)
    assert rows(unused.stdout)["NAME"] == ["SCOPES", "RATE", "EXPIRES", "LAST USE"]
    assert {name: cells[-1] for name, cells in rows(unused.stdout).items()} == {
        "NAME": "LAST USE",
        "alice": "-",
        "bob": "-",
        "carol": "-",
    }
    assert "no server has noted a use" in unused.stderr
    arguments = ["--tokens-file", str(file), "--reload-seconds", "0.1"]
    with running_server(*arguments) as one, running_server(*arguments) as other:
        with stub_of(one) as first, stub_of(other) as second:
            asked(first, "alice")
            asked(second, "bob")
        name = 'foldmint_token_last_use_timestamp_seconds{token="alice"}'
        wait_until(lambda: metrics_of(one).get(name, 0) >= began)
        assert name not in metrics_of(other)
    # Each has written what it knew, at the latest when it stopped.
    listed = rows(command("list", *at).stdout)
    ends = datetime.fromisoformat(listed["alice"][2])
    assert timedelta(days=89, hours=23) < ends - datetime.now(UTC) < timedelta(days=90)
    assert (listed["bob"][2], listed["carol"][2]) == ("never", "2099-12-31T00:00:00Z")
    for name in ("alice", "bob"):
        assert int(began) <= datetime.fromisoformat(listed[name][3]).timestamp() <= time.time()
    assert listed["carol"][3] == "-"

    state = Path(f"{file}.last-use.json")
    assert state.stat().st_mode & 0o777 == 0o600
    content = state.read_text()
    for one_token in read_tokens(file).tokens:
        assert one_token.digest.hex() not in content
    assert "foldmint_" not in content
    # A token that takes the name of a revoked one was never used.
    command("revoke", "alice", *at)
    command("create", "alice", "--scope", "read", *at)
    assert rows(command("list", *at).stdout)["alice"][3] == "-"


def test_where_nothing_can_be_written_calls_are_answered(tmp_path: Path, short: list[RealChain]) -> None:
    file, log, place = tmp_path / "tokens.toml", tmp_path / "log", tmp_path / "file" / "use.json"
    place.parent.write_text("not a folder, whoever one is")
    file.write_text(format_tokens([token("alice")]))
    arguments = ["--tokens-file", str(file), "--reload-seconds", "0.1", "--token-use-file", str(place)]
    with running_server(*arguments, log=log) as server, stub_of(server) as stub:
        stub.Tokenize(request_of(short[0]), metadata=bearer("alice"))
        wait_until(lambda: 'foldmint_token_last_use_timestamp_seconds{token="alice"}' in metrics_of(server))
    told = [json.loads(line) for line in log.read_text().splitlines()]
    (line,) = [one for one in told if one["event"] == "the last use of tokens is not written to a file"]
    assert "--token-use-file" in line["remedy"]
    assert "Not a directory" in line["reason"]


class Uses(TokenUse):
    """Whose clock is told, and which reports to nobody."""

    def __init__(self, path: Path, known: AccessTokens, now: list[float]) -> None:
        super().__init__(path, lambda: known, lambda *_: None, lambda: now[0])


def test_servers_add_to_what_others_wrote(tmp_path: Path) -> None:
    path, now = tmp_path / "use", [1000.0]
    alice, bob, gone = token("alice"), token("bob"), token("gone")
    old = Uses(path, AccessTokens((gone,)), now)
    old.note(gone)
    old.close()
    one, other = Uses(path, AccessTokens((alice, bob)), now), Uses(path, AccessTokens((alice, bob)), now)
    now[0] = 2000.7
    one.note(alice)
    one.close()
    now[0] = 3000.0
    other.note(alice)
    other.note(bob)
    other.close()
    one.close()  # which knows of an older use
    assert read_last_use(path) == {alice.fingerprint: 3000, bob.fingerprint: 3000, gone.fingerprint: 1000}
    now[0] += 40 * 86_400
    one.note(bob)
    one.close()
    assert read_last_use(path) == {alice.fingerprint: 3000, bob.fingerprint: int(now[0])}
    # What a write of another undid is written again.
    path.unlink()
    one.close()
    assert read_last_use(path) == {alice.fingerprint: 2000, bob.fingerprint: int(now[0])}


@pytest.mark.parametrize("content", ["[[token]]\n", "{}", '{"format": "other", "last_use": {}}', "[1]", "\xff"])
def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InvalidUseFile):
        read_last_use(path)
    use = Uses(path, AccessTokens((token("alice"),)), [5.0])
    use.note(token("alice"))
    with structlog.testing.capture_logs() as lines:
        use.close()
        use.close()
    assert len(lines) == 1
    assert path.read_text(encoding="latin-1") == content


@pytest.mark.parametrize(
    ("expires", "message"),
    [
        ("soon", "neither a duration"),
        ("2020-01-01", "is past"),
        ("2099-01-01T00:00:00", "needs a time zone"),
        ("99999999999y", "neither a duration"),
        ("0d", "neither a duration"),
    ],
)
def test_the_command_refuses_an_expiry(tmp_path: Path, expires: str, message: str) -> None:
    file = tmp_path / "tokens.toml"
    result = command("create", "alice", "--scope", "read", "--expires", expires, "--file", str(file))
    assert (result.exit_code, file.exists()) == (1, False)
    assert f"--expires {expires!r}" in result.stderr
    assert message in result.stderr


def test_names_that_metrics_use_are_not_given(tmp_path: Path) -> None:
    for name in ("other", "anonymous"):
        result = command("create", name, "--scope", "read", "--file", str(tmp_path / "tokens.toml"))
        assert result.exit_code == 1
        assert "choose another name" in result.stderr
