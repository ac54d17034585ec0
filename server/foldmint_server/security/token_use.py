"""When each token was last used: noted in memory at each call, and in a file now and then.

The file has times, by fingerprints of tokens, and no secret. Several servers may share it: each adds what it knows to
what is there, of two times the later one counts, and what another server's write has undone is written again a minute
later.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from foldmint_server.security.bearer_tokens import AccessToken, AccessTokens
from foldmint_server.security.file_permissions import replace_privately

log = structlog.get_logger(__name__)
_FORMAT = "foldmint-token-use-1"
_FILE_BYTES = 2**20
_WRITE_SECONDS = 60.0
_FORGET_SECONDS = 30 * 86_400.0  # of a token that is in the file of tokens no more


class InvalidUseFile(ValueError):
    """A file that is not one of last uses."""


def use_file_of(tokens_file: Path) -> Path:
    """The file's default place: beside the file of tokens."""
    return tokens_file.with_name(f"{tokens_file.name}.last-use.json")


def read_last_use(path: Path) -> dict[str, float]:
    """The time of the last use, in seconds since 1970, by the token's fingerprint; empty if there is no such file.

    Raises InvalidUseFile for a file of another kind, and OSError if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES + 1)
    except FileNotFoundError:
        return {}
    try:
        table = json.loads(content)
        if table["format"] != _FORMAT:
            raise InvalidUseFile(f"{path} has another format than {_FORMAT}")
        return {str(fingerprint): float(seconds) for fingerprint, seconds in table["last_use"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidUseFile(f"{path} is not a file of the last uses of tokens") from None


class TokenUse:
    """Notes uses, in the event loop; `check` and `close` write them, in a thread.

    path: of the file; where it cannot be written, the uses are only in memory and in the metrics, and the log says so.
    """

    def __init__(
        self,
        path: Path,
        tokens: Callable[[], AccessTokens],
        report: Callable[[str, float], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """report: is called with the name of a token and the time of its last use on this server."""
        self._path, self._tokens, self._report, self._clock = path, tokens, report, clock
        self._used: dict[bytes, float] = {}  # by digest
        self._reported: dict[bytes, float] = {}
        self._fault = ""
        self._tried = float("-inf")

    def note(self, token: AccessToken) -> None:
        """A token was used."""
        self._used[token.digest] = self._clock()

    def check(self) -> None:
        """Report new uses, and write them if it was not done within a minute."""
        tokens, used = self._tokens().tokens, dict(self._used)
        for token in tokens:
            when = used.get(token.digest)
            if when is not None and when != self._reported.get(token.digest):
                self._reported[token.digest] = when
                self._report(token.name, when)
        now = time.monotonic()
        if now - self._tried >= _WRITE_SECONDS:
            self._tried = now
            self._write(tokens, used)

    def close(self) -> None:
        """Write what was not written."""
        self._write(self._tokens().tokens, dict(self._used))

    def _write(self, tokens: tuple[AccessToken, ...], used: Mapping[bytes, float]) -> None:
        own = {token.fingerprint: float(int(used[token.digest])) for token in tokens if token.digest in used}
        if not own:
            return
        try:
            known = read_last_use(self._path)
            if all(known.get(fingerprint, 0.0) >= when for fingerprint, when in own.items()):
                return
            present, now = {token.fingerprint for token in tokens}, self._clock()
            merged = {
                fingerprint: max(own.get(fingerprint, 0.0), known.get(fingerprint, 0.0))
                for fingerprint in sorted({*own, *known})
                if fingerprint in present or now - known[fingerprint] < _FORGET_SECONDS
            }
            replace_privately(self._path, json.dumps({"format": _FORMAT, "last_use": merged}, indent=1) + "\n")
        except (InvalidUseFile, OSError) as error:
            if str(error) != self._fault:
                self._fault = str(error)
                log.warning(
                    "the last use of tokens is not written to a file",
                    reason=self._fault,
                    remedy="--token-use-file names a file that the server may write",
                )
            return
        self._fault = ""
