"""Reading of inputs: the structures of files, archives and databases, one after another."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from foldmint_client.errors import FoldmintError, MissingExtra, UnreadableInput
from foldmint_client.io.archives import Members
from foldmint_client.io.discovery import STDIN, Input, Note, skipped
from foldmint_client.io.foldcomp_files import Foldcomp, entries
from foldmint_client.io.suffixes import FOLDCOMP, is_archive
from foldmint_client.models.tokenize_request import Selection, Structure


class Failure(Protocol):
    """Called for a structure that cannot be read: its name in outputs, the reason, and the error."""

    def __call__(self, source: str, reason: str, error: Exception, /) -> object:
        """Record the failure."""


class InputReader:
    """Reads inputs; to be closed. Of archives and databases, one structure is in memory at a time.

    wanted: whether to read a structure, by its name in outputs. failure: called for those that cannot be read; a
    damaged archive is one failure, and the others continue. note: called with a line about other contents of archives.
    """

    def __init__(self, wanted: Callable[[str], bool], failure: Failure, note: Note) -> None:
        self._wanted, self._failure, self._note = wanted, failure, note
        self._foldcomp: Foldcomp | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._foldcomp is not None:
            self._foldcomp.close()

    def read(self, inputs: Iterable[Input]) -> Iterator[tuple[str, Structure]]:
        """The structures, with what outputs call them, in the order of the inputs."""
        for found in inputs:
            try:
                if found.has_several:
                    yield from self._several(found)
                elif self._wanted(found.source):
                    yield found.source, self._one(found)
            except (FoldmintError, OSError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                self._failure(found.source, reason.removeprefix(f"{found.path}: "), error)

    def _one(self, found: Input) -> Structure:
        if found.path == STDIN:
            return _chosen(sys.stdin.buffer.read(), found)
        path = Path(found.path)
        return _chosen(self._plain(path.read_bytes()) if path.name.lower().endswith(FOLDCOMP) else path, found)

    def _several(self, found: Input) -> Iterator[tuple[str, Structure]]:
        names = 0

        def asked(name: str) -> bool:
            nonlocal names
            if found.member not in ("", name):
                return False
            names += 1
            return self._wanted(found.called(name))

        members = Members(Path(found.path)) if is_archive(found.path) else None
        for name, content in members.read(asked) if members else entries(Path(found.path), asked):
            try:
                if isinstance(content, FoldmintError):
                    raise content
                packed = members is None or name.lower().endswith(FOLDCOMP)
                structure = _chosen(self._plain(content) if packed else content, found)
            except MissingExtra as error:
                if members is None:  # as all others would
                    raise
                self._failure(found.called(name), str(error), error)
            except FoldmintError as error:
                self._failure(found.called(name), str(error), error)
            else:
                yield found.called(name), structure
        if members is not None and members.skipped and not found.member:
            self._note(f"{found.path}: {skipped(members.skipped)}")
        if not names:
            raise UnreadableInput("there is no such member" if found.member else "there are no structures in it")

    def _plain(self, content: bytes) -> bytes:
        """The PDB file of what Foldcomp compressed."""
        self._foldcomp = self._foldcomp or Foldcomp()
        return self._foldcomp.pdb(content)


def _chosen(content: Path | bytes, found: Input) -> Structure:
    return Selection(content, found.chains) if found.chains else content
