"""What a store says that its servers serve: ACTIVE, HISTORY and CANARY, and how these change.

ACTIVE    the active version
HISTORY   the versions that were active, one a line, the oldest first, the active one last
CANARY    {"version", "share"}: the version that a share of the servers serves instead; if there is one

A file changes whole or not at all, and ACTIVE decides. An activation writes HISTORY before ACTIVE, a rollback after it:
whichever write a crash prevents, the last line of HISTORY is then one too many, and the line before it is ACTIVE.

A process holds the store's lock while it changes them. All functions raise ModelError if a file cannot be read or
written.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.store import layout
from foldmint_tokenizer.store.checked_files import read_json, read_text, write
from foldmint_tokenizer.store.storage import Files

_HISTORY = 100  # versions that are remembered


class Canary(NamedTuple):
    """A version on trial. share: of the servers, by the hashes of their names; above 0, at most 1."""

    version: str
    share: float

    def includes(self, server: str) -> bool:
        """Whether a server of that name serves it by default."""
        return hash_of(server) < self.share


class Control(NamedTuple):
    """What a store says. canary: None if no version is on trial."""

    active: str
    canary: Canary | None = None

    def version_for(self, server: str) -> str:
        """The version that a server of that name serves by default."""
        return self.canary.version if self.canary is not None and self.canary.includes(server) else self.active


def hash_of(server: str) -> float:
    """The place of a server's name between 0 and 1, below 1, from its SHA-256; the same for all canaries."""
    digest = hashlib.sha256(server.encode("utf-8", "surrogateescape")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # 53 bits: exact in a float, and never 1


def read_control(files: Files) -> Control:
    """What the store says now."""
    # CANARY first: what makes its version the active one writes ACTIVE before it removes CANARY.
    canary = read_canary(files)
    return Control(read_active(files), canary)


def read_active(files: Files) -> str:
    """The active version. Raises ModelError if the file does not name one, whether or not that version exists."""
    version = read_text(files, layout.ACTIVE).strip()
    if not layout.is_version(version):
        raise ModelError(f"{files.path(layout.ACTIVE)} does not name a version: {version[:100]!r}")
    return version


def read_canary(files: Files) -> Canary | None:
    """The canary, None if there is none."""
    try:
        value = read_json(files, layout.CANARY)
    except ModelError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    version: object = value.get("version")
    share: Any = value.get("share")
    is_number = isinstance(share, int | float) and not isinstance(share, bool)
    if isinstance(version, str) and layout.is_version(version) and is_number and 0 < float(share) <= 1:
        return Canary(version, float(share))
    raise ModelError(f"{files.path(layout.CANARY)} does not name a version and a share above 0 and at most 1")


def read_history(files: Files) -> list[str]:
    """The versions that were active, the oldest first; the last one is the active version.

    Raises ModelError if HISTORY is damaged.
    """
    return _up_to(read_active(files), _read_history(files))


def activate(files: Files, version: str) -> None:
    """Make a version the active one, and remember the one before. A canary of the version ends.

    ACTIVE and HISTORY are repaired if they are damaged.
    """
    canary, history = read_canary(files), _usable_history(files)
    if history[-1:] != [version]:
        _write_history(files, [*history, version])
        write_active(files, version)
    _end_canary_of(files, canary, version)


def roll_back(files: Files, from_version: str = "") -> str:
    """Make the version active that was active before, and return it. A canary of that version ends.

    from_version: that must be active now; empty: any. Raises ModelError if another is, or if there was none before.
    """
    canary, history = read_canary(files), read_history(files)
    target = rollback_target(files, history, from_version)
    if history != _read_history(files):
        _write_history(files, history)  # so that a crash after the next line leaves no more than one line too many
    write_active(files, target)
    _write_history(files, history[:-1])
    _end_canary_of(files, canary, target)
    return target


def rollback_target(files: Files, history: Sequence[str], from_version: str = "") -> str:
    """The version that a rollback activates; arguments and errors as of `roll_back`. history: of `read_history`."""
    active = history[-1]
    if from_version not in ("", active):
        raise ModelError(f"codebook {active} is active, not {from_version[:100]!r}; it may have been rolled back")
    if len(history) < 2:
        raise ModelError(f"no codebook was active before {active} in {files}")
    return history[-2]


def write_active(files: Files, version: str) -> None:
    """Name the active version and nothing else, as of a new store."""
    write(files, layout.ACTIVE, f"{version}\n".encode())


def write_canary(files: Files, canary: Canary) -> None:
    """Put a version on trial, instead of one that may be there. Raises ModelError if the share is out of range."""
    if not 0 < canary.share <= 1:
        raise ModelError(f"the share of a canary must be above 0 and at most 1, not {canary.share:g}")
    write(files, layout.CANARY, (json.dumps(canary._asdict()) + "\n").encode())


def end_canary(files: Files) -> None:
    """End the canary, even one that cannot be read; nothing happens where there is none."""
    try:
        files.remove(layout.CANARY)
    except OSError as error:
        raise ModelError(f"{files.path(layout.CANARY)} cannot be removed: {error}") from error


def _end_canary_of(files: Files, canary: Canary | None, version: str) -> None:
    if canary is not None and canary.version == version:
        end_canary(files)


def _up_to(active: str, history: list[str]) -> list[str]:
    """The lines of HISTORY that count, by what is active."""
    if history[-1:] == [active]:
        return history
    if history[-2:-1] == [active]:  # a crash between two writes
        return history[:-1]
    return [*history, active]  # ACTIVE was written by another program


def _usable_history(files: Files) -> list[str]:
    """What can be read of ACTIVE and HISTORY. Raises ModelError if the store cannot be reached."""
    history: list[str] = []
    try:
        history = _read_history(files)
        return _up_to(read_active(files), history)
    except ModelError as error:
        _refuse_unreachable(error)
    try:
        return history or [read_active(files)]
    except ModelError as error:
        _refuse_unreachable(error)
        return []


def _refuse_unreachable(error: ModelError) -> None:
    """Raise the error again unless a file is missing or invalid."""
    if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
        raise error


def _read_history(files: Files) -> list[str]:
    """The lines of HISTORY; nothing in stores that have none."""
    try:
        text = files.read(layout.HISTORY).decode("utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{files.path(layout.HISTORY)} cannot be read: {error}") from error
    history = text.split()
    if not all(map(layout.is_version, history)):
        raise ModelError(f"{files.path(layout.HISTORY)} does not list versions")
    return history


def _write_history(files: Files, history: Sequence[str]) -> None:
    write(files, layout.HISTORY, "".join(f"{version}\n" for version in history[-_HISTORY:]).encode())
