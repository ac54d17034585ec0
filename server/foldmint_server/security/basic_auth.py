"""Basic authentication of /metrics and the page: a file of names and hashes of passwords.

A line of the file is `NAME:SHA256`, the hash in hexadecimal; `foldmint-server password NAME --file FILE` writes it and
prints the password: 256 random bits, for which one round of SHA-256 is enough. Empty lines, and those that begin with
#, are ignored.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from foldmint_server.security.bearer_tokens import check_name, digest_of
from foldmint_server.security.file_permissions import writable_by_others

_FILE_BYTES = 2**16
_PASSWORDS = 100
_LONGEST = 1024  # characters of a header that are read
_DIGEST = re.compile(r"[0-9a-f]{64}")


class InvalidPasswords(ValueError):
    """A file of passwords that cannot be used. The message names the line, never its content."""


@dataclass(frozen=True)
class Passwords:
    """Hashes, by name."""

    digests: tuple[tuple[str, bytes], ...] = field(repr=False)

    def matches(self, name: str, password: str) -> bool:
        """Whether the password is that of the name. All are compared, in constant time."""
        asked, presented, found = digest_of(name), digest_of(password), False
        for known, digest in self.digests:
            same_name = hmac.compare_digest(asked, digest_of(known))
            found |= hmac.compare_digest(presented, digest) and same_name
        return found


def read_passwords(path: Path) -> Passwords:
    """The passwords of a file. Raises InvalidPasswords, also if it cannot be read or is empty."""
    try:
        with path.open("rb") as file:
            wrong, content = writable_by_others(file, path), file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidPasswords(f"{path}: {error.strerror or error}") from None
    if wrong:
        raise InvalidPasswords(wrong)
    if len(content) > _FILE_BYTES:
        raise InvalidPasswords(f"{path} is larger than {_FILE_BYTES} bytes")
    found: dict[str, bytes] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, digest = line.strip().partition(":")
        try:
            check_name(name)
        except ValueError as error:
            raise InvalidPasswords(f"{path}, line {number}: {error}") from None
        if not colon or not _DIGEST.fullmatch(digest):
            raise InvalidPasswords(f"{path}, line {number}: expected NAME:SHA256, with 64 hexadecimal digits")
        if name in found:
            raise InvalidPasswords(f"{path}, line {number}: duplicate name")
        found[name] = bytes.fromhex(digest)
    if not 0 < len(found) <= _PASSWORDS:
        raise InvalidPasswords(f"{path} holds {len(found)} passwords; expected 1 to {_PASSWORDS}")
    return Passwords(tuple(found.items()))


def require_basic_auth(
    app: WSGIApplication,
    passwords: Callable[[], Passwords],
    refused: Callable[[WSGIEnvironment, str], object] = lambda _environ, _reason: None,
) -> WSGIApplication:
    """An application that requires a password; any request without one gets 401.

    refused: is called with each rejected request, and `no_password` or `wrong_password`.
    """

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        header = environ.get("HTTP_AUTHORIZATION", "")
        if passwords().matches(*_presented(header)):
            return app(environ, start_response)
        refused(environ, "wrong_password" if header else "no_password")
        body = b"401 Unauthorized\n"
        headers = [
            ("WWW-Authenticate", 'Basic realm="foldmint", charset="UTF-8"'),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        start_response("401 Unauthorized", headers)
        return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)

    return guarded


def _presented(header: str) -> tuple[str, str]:
    """Name and password of a header; empty ones, which no one has, of another."""
    scheme, _, encoded = header[:_LONGEST].partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return "", ""
    name, _, password = text.partition(":")
    return name, password
