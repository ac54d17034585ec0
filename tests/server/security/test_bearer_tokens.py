"""The file of tokens: hashes of random bits, and messages that name the place and never the secret."""

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from foldmint_server.cli.main import app
from foldmint_server.security.bearer_tokens import (
    PREFIX,
    AccessToken,
    AccessTokens,
    InvalidTokenFile,
    Rate,
    digest_of,
    format_tokens,
    new_token,
    parse_tokens,
    read_tokens,
)

SECRET = PREFIX + "S3cretS3cretS3cretS3cretS3cretS3cretS3cret012"
ENTRY = f'[[token]]\nname = "alice"\nsha256 = "{digest_of(SECRET).hex()}"\nscopes = ["tokenize"]\n'


def test_a_token_is_known_by_its_hash() -> None:
    tokens = parse_tokens(ENTRY)
    found = tokens.find(SECRET)
    assert found is not None
    assert (found.name, found.scopes, found.rate) == ("alice", frozenset({"tokenize"}), None)
    for wrong in ("", SECRET[:-1], SECRET + "x", digest_of(SECRET).hex(), "\udcff", "ü"):
        assert tokens.find(wrong) is None


def test_tokens_are_random_and_their_hash_is_not_shown() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(PREFIX + "[A-Za-z0-9_-]{43}", token) for token in made)
    assert digest_of(SECRET).hex() not in repr(parse_tokens(ENTRY))
    assert repr(digest_of(SECRET)) not in repr(parse_tokens(ENTRY))


def test_what_is_written_is_read() -> None:
    some = (
        AccessToken("a", digest_of("1"), frozenset({"tokenize", "read", "admin"})),
        AccessToken("b@c.d-e_f", digest_of("2"), frozenset({"read"}), Rate(0.5, 20_000)),
    )
    assert parse_tokens(format_tokens(some)).tokens == some
    assert parse_tokens("").tokens == ()


def test_a_rate_has_a_burst_of_ten_seconds_unless_told() -> None:
    (token,) = parse_tokens(ENTRY + "residues_per_second = 200").tokens
    assert token.rate == Rate(200, 2000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"name = {SECRET}", "line 1, column 8"),
        (ENTRY + f'token = "{SECRET}"', "unknown key token;"),
        (ENTRY.replace(digest_of(SECRET).hex(), SECRET), r"line 1 \(alice\): sha256 is the token's hash"),
        ("\n\n" + ENTRY + "\n" + ENTRY.replace('"alice"', f'"{SECRET}"'), "line 8: a name is 1 to 64"),
        (ENTRY.replace('["tokenize"]', '"tokenize"'), r"\(alice\): scopes must be a list"),
        (ENTRY.replace("tokenize", SECRET), r"\(alice\): scopes must be one or more of tokenize, read, admin"),
        (ENTRY.replace('["tokenize"]', "[]"), "scopes must be one or more"),
        (ENTRY.replace('"alice"', "7"), "name is missing"),
        (ENTRY + "burst = 5", "burst needs"),
        (ENTRY + "residues_per_second = 0", "positive"),
        (ENTRY + "residues_per_second = inf", "positive"),
        (ENTRY + "residues_per_second = true", "must be numbers"),
        (ENTRY + f'residues_per_second = "{SECRET}"', "must be numbers"),
        (ENTRY + ENTRY.replace(digest_of(SECRET).hex(), digest_of("2").hex()), "the same name"),
        (ENTRY + ENTRY.replace("alice", "bob"), "the same sha256"),
        (f'tokens = "{SECRET}"', "and nothing else"),
        ('token = "x"', "and nothing else"),
        (ENTRY + f'"{SECRET}" = 1', "unknown key; known are"),
    ],
)
def test_a_fault_is_told_by_its_place_alone(text: str, message: str) -> None:
    with pytest.raises(InvalidTokenFile, match=message) as caught:
        parse_tokens(text)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidTokenFile, match="No such file"):
        read_tokens(tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidTokenFile, match="UTF-8"):
        read_tokens(tmp_path / "binary")
    (tmp_path / "large").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(InvalidTokenFile, match="larger"):
        read_tokens(tmp_path / "large")
    with pytest.raises(ValueError, match="more than 1000"):
        AccessTokens(tuple(AccessToken(f"n{i}", digest_of(str(i)), frozenset({"read"})) for i in range(1001)))


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def test_the_command_makes_lists_and_revokes(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    at = ("--file", str(file))
    created = command("tokens", "create", "alice", "--scope", "tokenize", "--scope", "read", *at)
    limited = command("tokens", "create", "bob", "--scope", "admin", "--residues-per-second", "50", *at)
    assert created.exit_code == limited.exit_code == 0
    tokens = read_tokens(file)
    assert tokens.find(created.stdout.strip()) == tokens.tokens[0]
    assert tokens.find(limited.stdout.strip()) == AccessToken(
        "bob", digest_of(limited.stdout.strip()), frozenset({"admin"}), Rate(50, 500)
    )
    assert created.stdout.strip() not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert command("tokens", "list", *at).stdout == (
        "NAME   SCOPES         RATE             EXPIRES  LAST USE\n"
        "alice  read,tokenize  -                never    -\n"
        "bob    admin          50/s, burst 500  never    -\n"
    )
    assert command("tokens", "revoke", "alice", *at).stdout == "revoked alice\n"
    assert [token.name for token in read_tokens(file).tokens] == ["bob"]
    assert os.listdir(tmp_path) == ["tokens.toml"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "bob", "--scope", "read"], "revoke it first"),
        (["create", "x y", "--scope", "read"], "a name is"),
        (["create", "alice", "--scope", "tokenize"], "revoke it first"),
        (["create", "carol", "--scope", "read", "--burst", "5"], "--burst needs"),
        (["create", "carol", "--scope", "read", "--residues-per-second", "-1"], "positive"),
        (["revoke", "carol"], "no token of that name"),
    ],
)
def test_the_command_refuses(tmp_path: Path, arguments: list[str], message: str) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(format_tokens(AccessToken(name, digest_of(name), frozenset({"read"})) for name in ("alice", "bob")))
    before = file.read_text()
    result = command("tokens", *arguments, "--file", str(file))
    assert result.exit_code == 1
    assert message in result.stderr
    assert file.read_text() == before
    result = command("tokens", "create", "carol", "--scope", "all", "--file", str(file))
    assert (result.exit_code, file.read_text()) == (2, before)
    assert "'--scope'" in result.stderr
