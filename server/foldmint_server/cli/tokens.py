"""The commands `foldmint-server tokens create|list|revoke` and `foldmint-server password`.

foldmint-server tokens create alice --scope tokenize --expires 90d --file tokens.toml
foldmint-server password prometheus --file metrics-auth
"""

import enum
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from foldmint.command_line import GroupedCommand, epilog
from foldmint.durations import parse_duration
from foldmint_server.metrics.callers import RESERVED
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
    iso,
    new_token,
    read_tokens,
)
from foldmint_server.security.file_permissions import replace_privately
from foldmint_server.security.token_use import InvalidUseFile, read_last_use, use_file_of

tokens = typer.Typer(
    name="tokens",
    help="Create, list and revoke bearer tokens, in the file that --tokens-file of the server names.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
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
    expires: Annotated[
        str | None,
        typer.Option(
            help="When it expires: a duration as 90d or 12h, a day in UTC as 2027-01-31, or a time as "
            "2027-01-31T12:00:00Z; never by default."
        ),
    ] = None,
) -> None:
    """Create a token and print it, once: the file stores only its hash."""
    with _errors_reported():
        rate, end = _rate(residues_per_second, burst), None if expires is None else _expiry(expires, datetime.now(UTC))
        if name in RESERVED:
            raise InvalidTokenFile(f"{name} is what metrics call other callers; choose another name")
        known = read_tokens(file).tokens if file.exists() else ()
        if name in {one.name for one in known}:
            raise InvalidTokenFile(f"{file} has a token of that name; revoke it first")
        token = new_token()
        scopes: frozenset[Scope] = frozenset(one.value for one in scope)
        made = AccessTokens((*known, AccessToken(name, digest_of(token), scopes, rate, end)))
        replace_privately(file, format_tokens(made.tokens))
    typer.echo(token)


@tokens.command("list", cls=GroupedCommand, epilog=_epilog("Of another file", "tokens list --file tokens.toml"))
def list_tokens(
    file: File = _FILE,
    use_file: Annotated[
        Path | None,
        typer.Option(
            envvar="FOLDMINT_TOKEN_USE_FILE",
            help="Where servers note the last use, --token-use-file of the server; FILE.last-use.json by default.",
        ),
    ] = None,
) -> None:
    """Print names, scopes, rates, expiry and last use, as servers note it each minute."""
    with _errors_reported():
        known, place = read_tokens(file).tokens, use_file or use_file_of(file)
        last_use = read_last_use(place)
        header = ("NAME", "SCOPES", "RATE", "EXPIRES", "LAST USE")
        for line in _columns([header, *(_row(one, last_use, time.time()) for one in known)]):
            typer.echo(line)
        if known and not place.exists():
            typer.echo(f"no server has noted a use in {place}", err=True)


@tokens.command(cls=GroupedCommand, epilog=_epilog("A token that leaked", "tokens revoke alice"))
def revoke(name: Name, file: File = _FILE) -> None:
    """Revoke a token."""
    with _errors_reported():
        known = read_tokens(file).tokens
        kept = [one for one in known if one.name != name]
        if len(kept) == len(known):
            raise InvalidTokenFile(f"{file} has no token of that name")
        replace_privately(file, format_tokens(kept))
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
        replace_privately(
            file, "".join(f"{other}:{digest.hex()}\n" for other, digest in [*kept, (name, digest_of(word))])
        )
    typer.echo(word)


PASSWORD_EPILOG = _epilog("For Prometheus", "password prometheus --file metrics-auth > metrics.password")


def _rate(residues_per_second: float | None, burst: float | None) -> Rate | None:
    if residues_per_second is None:
        if burst is not None:
            raise InvalidTokenFile("--burst needs --residues-per-second")
        return None
    return Rate(residues_per_second, max(1.0, 10 * residues_per_second) if burst is None else burst)


def _expiry(text: str, now: datetime) -> datetime:
    """The time that an option names, to the second. Raises ValueError, also if it is past."""
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        try:
            end = now + timedelta(seconds=parse_duration(text))
        except (ValueError, OverflowError):
            raise ValueError(
                f"--expires {text!r} is neither a duration (90d), a day (2027-01-31) nor a time (2027-01-31T12:00:00Z)"
            ) from None
    if len(text) == len("2027-01-31") and end.tzinfo is None:
        end = end.replace(tzinfo=UTC)
    if end.tzinfo is None:
        raise ValueError(f"--expires {text!r} needs a time zone, as in 2027-01-31T12:00:00Z")
    if end <= now:
        raise ValueError(f"--expires {text!r} is past")
    return end.astimezone(UTC).replace(microsecond=0)


def _row(token: AccessToken, last_use: Mapping[str, float], now: float) -> tuple[str, ...]:
    rate = "-" if token.rate is None else f"{token.rate.residues_per_second:g}/s, burst {token.rate.burst:g}"
    ends = "never" if token.expires is None else iso(token.expires) + (" (expired)" if token.expired(now) else "")
    used = last_use.get(token.fingerprint)
    when = "-" if used is None else iso(datetime.fromtimestamp(used, UTC))
    return token.name, ",".join(sorted(token.scopes)), rate, ends, when


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines, their columns as wide as they need."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


@contextmanager
def _errors_reported() -> Iterator[None]:
    """Print an error's message, and exit with code 1."""
    try:
        yield
    except (InvalidTokenFile, InvalidPasswords, InvalidUseFile, ValueError, OSError) as error:
        typer.echo(f"foldmint-server: {error}", err=True)
        raise typer.Exit(1) from error
