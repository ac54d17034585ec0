"""The commands `foldmint-server tokens create|list|revoke` and `foldmint-server password`.

foldmint-server tokens create alice --scope tokenize --file tokens.toml
foldmint-server password prometheus --file metrics-auth
"""

import enum
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from foldmint.command_line import GroupedCommand, epilog
from foldmint_server.security.basic_auth import InvalidPasswords, read_passwords
from foldmint_server.security.bearer_tokens import (
    AccessToken,
    AccessTokens,
    InvalidTokenFile,
    Rate,
    Scope,
    check_name,
    digest_of,
    format_tokens,
    new_token,
    read_tokens,
)

tokens = typer.Typer(
    help="Create, list and revoke bearer tokens, in the file that --tokens-file of the server names.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="Name of its owner.")]
File = Annotated[Path, typer.Option(envvar="FOLDMINT_TOKENS_FILE", help="The token file; running servers reload it.")]
_FILE = Path("tokens.toml")


class _Scope(enum.Enum):
    """The scopes, as typer takes choices that may be repeated."""

    TOKENIZE = "tokenize"
    READ = "read"
    ADMIN = "admin"


_EXITS = {0: "done", 1: "the file cannot be used, with the reason", 2: "a wrong option"}


def _epilog(what: str, command: str) -> str:
    return epilog({what: f"foldmint-server {command}"}, _EXITS)


@tokens.command(
    cls=GroupedCommand,
    epilog=_epilog(
        "A token of limited rate", "tokens create alice --scope tokenize --residues-per-second 2000 > alice"
    ),
)
def create(
    name: Name,
    scope: Annotated[list[_Scope], typer.Option(help="What it permits; may be repeated.")],
    file: File = _FILE,
    residues_per_second: Annotated[float | None, typer.Option(help="Rate limit in residues.")] = None,
    burst: Annotated[
        float | None, typer.Option(help="Residues at once after a pause; ten seconds' worth by default.")
    ] = None,
) -> None:
    """Create a token and print it, once: the file stores only its hash."""
    with _errors_reported():
        rate = _rate(residues_per_second, burst)
        known = read_tokens(file).tokens if file.exists() else ()
        if name in {one.name for one in known}:
            raise InvalidTokenFile(f"{file} has a token of that name; revoke it first")
        token = new_token()
        scopes: frozenset[Scope] = frozenset(one.value for one in scope)
        made = AccessTokens((*known, AccessToken(name, digest_of(token), scopes, rate)))
        _replace(file, format_tokens(made.tokens))
    typer.echo(token)


@tokens.command("list", cls=GroupedCommand, epilog=_epilog("Of another file", "tokens list --file tokens.toml"))
def list_tokens(file: File = _FILE) -> None:
    """Print names, scopes and rates."""
    with _errors_reported():
        for one in read_tokens(file).tokens:
            rate = "" if one.rate is None else f"  {one.rate.residues_per_second:g}/s, burst {one.rate.burst:g}"
            typer.echo(f"{one.name}  {','.join(sorted(one.scopes))}{rate}")


@tokens.command(cls=GroupedCommand, epilog=_epilog("A token that leaked", "tokens revoke alice"))
def revoke(name: Name, file: File = _FILE) -> None:
    """Revoke a token."""
    with _errors_reported():
        known = read_tokens(file).tokens
        kept = [one for one in known if one.name != name]
        if len(kept) == len(known):
            raise InvalidTokenFile(f"{file} has no token of that name")
        _replace(file, format_tokens(kept))
    typer.echo(f"revoked {name}")


def password(
    name: Name,
    file: Annotated[
        Path, typer.Option(envvar="FOLDMINT_METRICS_AUTH", help="The file that --metrics-auth of the server names.")
    ],
) -> None:
    """Create a password for /metrics and the dashboard and print it, once. It replaces an older one of this name."""
    with _errors_reported():
        check_name(name)
        known = read_passwords(file).digests if file.exists() and file.stat().st_size else ()
        word = secrets.token_urlsafe(32)
        kept = [(other, digest) for other, digest in known if other != name]
        _replace(file, "".join(f"{other}:{digest.hex()}\n" for other, digest in [*kept, (name, digest_of(word))]))
    typer.echo(word)


def add_to(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.add_typer(tokens, name="tokens")
    shown = _epilog("For Prometheus", "password prometheus --file metrics-auth > metrics.password")
    app.command(cls=GroupedCommand, epilog=shown)(password)


def _rate(residues_per_second: float | None, burst: float | None) -> Rate | None:
    if residues_per_second is None:
        if burst is not None:
            raise InvalidTokenFile("--burst needs --residues-per-second")
        return None
    return Rate(residues_per_second, max(1.0, 10 * residues_per_second) if burst is None else burst)


@contextmanager
def _errors_reported() -> Iterator[None]:
    """Print an error's message, and exit with code 1."""
    try:
        yield
    except (InvalidTokenFile, InvalidPasswords, ValueError, OSError) as error:
        typer.echo(f"foldmint-server: {error}", err=True)
        raise typer.Exit(1) from error


def _replace(file: Path, text: str) -> None:
    """Write a file that only its owner may read, atomically, so that no server reads half of it."""
    handle, part = tempfile.mkstemp(dir=file.resolve().parent, prefix=f".{file.name}.")  # of mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        Path(part).replace(file.resolve())
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
