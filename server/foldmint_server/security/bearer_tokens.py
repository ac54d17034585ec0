"""Bearer tokens: who may call, and what for; the file holds a hash of each token, never the token.

[[token]]
name = "alice"
sha256 = "9f86d0…"                # of the token; `foldmint-server tokens create alice` makes both
scopes = ["tokenize", "read"]
residues_per_second = 2000        # optional, with burst = 20000
expires = 2027-01-31T00:00:00Z    # optional, with a time zone
"""

import hashlib
import re
import secrets
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from foldmint_server.security.file_permissions import writable_by_others

Scope = Literal["tokenize", "read", "admin"]
"""What a caller may do: tokenize and detokenize; read the model and its usage; exchange the codebook, and sample the
vectors of what others sent."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "foldmint_"
"""Begins every token, so that scanners for leaked secrets recognize one."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE_BYTES = 2**20
_TOKENS = 1000
_KEYS = {"name", "sha256", "scopes", "residues_per_second", "burst", "expires"}
_BURST_SECONDS = 10  # of the rate, if no burst is given


class InvalidTokenFile(ValueError):
    """A file of tokens that cannot be used. The message names the line and the token's name, never a value."""


@dataclass(frozen=True)
class Rate:
    """Residues a second, and how many may come at once after a pause."""

    residues_per_second: float
    burst: float

    def __post_init__(self) -> None:
        if not 0 < self.residues_per_second < float("inf") or not 1 <= self.burst < float("inf"):
            raise ValueError("residues_per_second must be positive, and burst at least 1")


@dataclass(frozen=True)
class AccessToken:
    """A token as the file has it. digest: its SHA-256. rate: None for no limit. expires: None for never."""

    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]
    rate: Rate | None = None
    expires: datetime | None = None

    def __post_init__(self) -> None:
        if self.expires is not None and self.expires.tzinfo is None:
            raise ValueError("expires needs a time zone, as in 2027-01-31T00:00:00Z")
        check_name(self.name)
        if not self.scopes or not self.scopes <= set(SCOPES):
            raise ValueError(f"scopes must be one or more of {', '.join(SCOPES)}")

    @property
    def fingerprint(self) -> str:
        """Identifies the token where its hash is not to be shown: 16 hexadecimal digits."""
        return hashlib.sha256(self.digest).hexdigest()[:16]

    def expired(self, now: float) -> bool:
        """Whether it is no longer valid at a time, in seconds since 1970."""
        return self.expires is not None and now >= self.expires.timestamp()


@dataclass(frozen=True)
class AccessTokens:
    """All tokens that are valid."""

    tokens: tuple[AccessToken, ...] = ()
    _by_digest: dict[bytes, AccessToken] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.tokens) > _TOKENS:
            raise ValueError(f"there are more than {_TOKENS} tokens")
        for what, values in (("name", [one.name for one in self.tokens]), ("sha256", [d.digest for d in self.tokens])):
            if len(set(values)) < len(values):
                raise ValueError(f"two tokens have the same {what}")
        object.__setattr__(self, "_by_digest", {token.digest: token for token in self.tokens})

    def find(self, presented: str) -> AccessToken | None:
        """The token that was presented; None if it is unknown. It is looked up by its hash, which a caller cannot
        choose, so the time of the lookup reveals nothing about other tokens.
        """
        return self._by_digest.get(digest_of(presented))


def digest_of(token: str) -> bytes:
    """SHA-256: enough for 256 random bits, which cannot be guessed, and fast enough for every call."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_token() -> str:
    """A token of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def check_name(name: str) -> None:
    """Raise ValueError, without repeating it, for an invalid name: it may be a token in the wrong place."""
    if not _NAME.fullmatch(name) or PREFIX in name:
        raise ValueError("a name is 1 to 64 of A-Z a-z 0-9 . _ @ - and begins with a letter or a digit")


def read_tokens(path: Path) -> AccessTokens:
    """The tokens of a file. Raises InvalidTokenFile, also if it cannot be read, or every user can write it."""
    try:
        with path.open("rb") as file:
            wrong, content = writable_by_others(file, path), file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidTokenFile(f"{path}: {error.strerror or error}") from error
    if wrong:
        raise InvalidTokenFile(wrong)
    if len(content) > _FILE_BYTES:
        raise InvalidTokenFile(f"{path} is larger than {_FILE_BYTES} bytes")
    try:
        return parse_tokens(content.decode())
    except InvalidTokenFile as error:
        raise InvalidTokenFile(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise InvalidTokenFile(f"{path} is not UTF-8") from None


def parse_tokens(text: str) -> AccessTokens:
    """The tokens of a file's text. Raises InvalidTokenFile."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # The parser's message may repeat the content; the position is enough.
        place = re.search(r"\(at (line \d+, column \d+|end of document)\)$", str(error))
        raise InvalidTokenFile(f"invalid TOML at {place[1] if place else 'an unknown position'}") from None
    items = table.get("token", [])
    if set(table) - {"token"} or not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidTokenFile("a file of tokens holds tables [[token]], and nothing else")
    places = [number for number, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[\s*token\s*\]\]", line)]
    tokens = []
    for position, item in enumerate(items):
        where = f"line {places[position]}" if len(places) == len(items) else f"token {position + 1}"
        try:
            tokens.append(_token(item))
        except ValueError as error:
            raise InvalidTokenFile(f"{where}{_named(item)}: {error}") from None
    try:
        return AccessTokens(tuple(tokens))
    except ValueError as error:
        raise InvalidTokenFile(str(error)) from None


def _token(item: dict[str, Any]) -> AccessToken:
    if unknown := sorted(key for key in item if key not in _KEYS):
        shown = [key for key in unknown if _NAME.fullmatch(key) and len(key) < 32 and PREFIX not in key]
        named = f" {', '.join(shown)}" if shown else ""
        raise ValueError(f"unknown key{named}; known are {', '.join(sorted(_KEYS))}")
    name, digest, scopes = item.get("name"), item.get("sha256"), item.get("scopes")
    if not isinstance(name, str):
        raise ValueError("name is missing, or not a string")  # noqa: TRY004 (what is wrong is the file)
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError("sha256 is the token's hash, 64 hexadecimal digits; is it the token itself?")
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise ValueError("scopes must be a list of strings")
    return AccessToken(name, bytes.fromhex(digest), frozenset(scopes), _rate(item), _expires(item))


def _expires(item: dict[str, Any]) -> datetime | None:
    expires = item.get("expires")
    if expires is not None and not isinstance(expires, datetime):
        raise ValueError("expires must be a date with time and time zone, as 2027-01-31T00:00:00Z, without quotes")
    return expires


def _rate(item: dict[str, Any]) -> Rate | None:
    given = {key: item[key] for key in ("residues_per_second", "burst") if key in item}
    if not given:
        return None
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in given.values()):
        raise ValueError("residues_per_second and burst must be numbers")
    if "residues_per_second" not in given:
        raise ValueError("burst needs residues_per_second")
    speed = float(given["residues_per_second"])
    return Rate(speed, float(given.get("burst", max(1.0, speed * _BURST_SECONDS))))


def _named(item: dict[str, Any]) -> str:
    """The name in parentheses; empty if it may be a token."""
    name = item.get("name")
    try:
        check_name(name if isinstance(name, str) else "")
    except ValueError:
        return ""
    return f" ({name})"


def format_tokens(tokens: Iterable[AccessToken]) -> str:
    """The file's text for tokens."""
    parts = []
    for token in tokens:
        scopes = ", ".join(f'"{scope}"' for scope in SCOPES if scope in token.scopes)
        lines = ["[[token]]", f'name = "{token.name}"', f'sha256 = "{token.digest.hex()}"', f"scopes = [{scopes}]"]
        if token.rate is not None:
            lines += [f"residues_per_second = {token.rate.residues_per_second:g}", f"burst = {token.rate.burst:g}"]
        if token.expires is not None:
            lines.append(f"expires = {iso(token.expires)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def iso(time: datetime) -> str:
    """A time in UTC, to the second: 2027-01-31T00:00:00Z."""
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
