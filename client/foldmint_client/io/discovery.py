"""Finding of structures: files and folders, patterns and lists, archives and databases, chains, and standard input."""

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from foldmint_client.io.foldcomp_files import is_database
from foldmint_client.io.suffixes import FOLDCOMP, STRUCTURES, is_archive, is_structure, kind

STDIN = "-"

_LIST = "@"
_MEMBER = "!"
# A path and names of chains; the file system decides whether it is one.
_SELECTION = re.compile(r"(.+):([^:/\\]+)", re.DOTALL)
_NAMED = 5  # kinds of files that are reported
_BESIDE = (".index", ".lookup", ".dbtype", ".source")  # of a database

Problem = Callable[[str, str], object]
"""Called with path and reason of an invalid input."""

Note = Callable[[str], object]
"""Called with a line about skipped files."""


@dataclass(frozen=True)
class Input:
    """A file, or standard input: one structure or, if it is an archive or a database, any number.

    path: as it was given or found. chains: names of those to read; empty: what the options say. member: of an
    archive or database the one to read; empty: all.
    """

    path: str
    chains: tuple[str, ...] = ()
    member: str = ""

    @property
    def source(self) -> str:
        """What every output calls it: as it was given or found, in characters that all take; `-` for standard input."""
        return self.called(self.member)

    @property
    def has_several(self) -> bool:
        """Whether it is an archive or a database, whose structures are known when it is read."""
        return self.path != STDIN and (is_archive(self.path) or is_database(Path(self.path)))

    def called(self, member: str) -> str:
        """What every output calls one of its structures."""
        name = f"{self.path}{_MEMBER}{member}" if member else self.path
        return _printable(f"{name}:{','.join(self.chains)}" if self.chains else name)

    def may_hold(self, source: str) -> bool:
        """Whether it may be what a structure of that name came from."""
        if self.member or not self.has_several:
            return source == self.source
        return source.startswith(_printable(self.path + _MEMBER))


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def find_inputs(paths: Iterable[str], problem: Problem, note: Note = lambda _: None) -> Iterator[Input]:
    """The structures that the paths mean, in their order; within a folder or pattern, sorted by name.

    A folder means the files below it with a suffix of a structure or an archive, hidden ones left out. A path that does
    not exist is a pattern; what exists by its name is taken by its name. A file named is taken whatever its suffix.
    `PATH:A,B` means chains of it, `ARCHIVE!MEMBER` one member, and `@FILE` what the lines of a file name.
    """
    for path in paths:
        if path.startswith(_LIST) and not Path(path).exists():
            for line in _listed(path.removeprefix(_LIST), problem):
                yield from _meant(line, problem, note)
        else:
            yield from _meant(path, problem, note)


def _meant(path: str, problem: Problem, note: Note) -> Iterator[Input]:
    """What one path means."""
    if path == STDIN or Path(path).exists():
        yield from _found(path, problem, note)
        return
    if matches := _matches(path):
        for match in matches:
            yield from _found(match, problem, note)
        return
    if (selected := _SELECTION.fullmatch(path)) is not None:
        whole, names = selected[1], tuple(selected[2].split(","))
        if whole == STDIN or Path(whole).exists() or _matches(whole) or _member(whole) is not None:
            for found in _meant(whole, problem, note):
                yield replace(found, chains=names)
            return
    if (member := _member(path)) is not None:
        yield member
    elif glob.has_magic(path):
        problem(path, "no file matches this pattern")
    else:
        yield Input(path)  # reading it will say that it does not exist


def _found(path: str, problem: Problem, note: Note) -> Iterator[Input]:
    """A file or folder that exists."""
    if not Path(path).is_dir():
        yield Input(path)
        return
    passed: Counter[str] = Counter()
    below = [*_below(path, problem, passed)]
    if not below:
        problem(
            path, f"no structure files ({', '.join(STRUCTURES)}, {FOLDCOMP}, compressed, or in archives) in this folder"
        )
    if passed.total():
        note(f"{path}: {skipped(passed)}")
    yield from map(Input, below)


def _member(path: str) -> Input | None:
    """A member of an archive or database, if it is one that exists."""
    archive, mark, member = path.partition(_MEMBER)
    while mark:
        found = Input(archive, member=member)
        if member and Path(archive).is_file() and found.has_several:
            return found
        more, mark, member = member.partition(_MEMBER)
        archive = f"{archive}{_MEMBER}{more}"
    return None


def _listed(name: str, problem: Problem) -> Iterator[str]:
    """The lines of a list, without empty ones and comments."""
    try:
        text = sys.stdin.read() if name == STDIN else Path(name).read_text("utf-8", "surrogateescape")
    except OSError as error:
        problem(_LIST + name, f"the list cannot be read: {error.strerror or error}")
        return
    for line in text.removeprefix("\ufeff").splitlines():
        path = line.strip()
        if path and not path.startswith("#"):
            yield path


def _matches(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return []
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (the path stays as it was written)


def _below(folder: str, problem: Problem, passed: Counter[str]) -> Iterator[str]:
    """The files of structures below a folder; what else there is is counted."""

    def unreadable(error: OSError) -> None:
        problem(str(error.filename), error.strerror or str(error))

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        passed["linked folders"] += sum(Path(parent, name).is_symlink() for name in folders)
        databases = {name for name in files if name + ".index" in files and name + ".dbtype" in files}
        parts = {name + suffix for name in databases for suffix in _BESIDE}
        for name in sorted(files):
            if name.startswith(".") or name in parts:
                continue
            if is_structure(name) or is_archive(name) or name in databases:
                yield os.path.join(parent, name)  # noqa: PTH118 (the path stays as it was written)
            else:
                passed[kind(name)] += 1


def skipped(passed: Counter[str]) -> str:
    """What was passed over, by kinds, the most frequent first."""
    named = [(count, what) for what, count in passed.most_common(_NAMED) if count]
    more = passed.total() - sum(count for count, _ in named)
    return f"skipped {', '.join(f'{count} {what}' for count, what in named)}{f' and {more} more' if more else ''}"
