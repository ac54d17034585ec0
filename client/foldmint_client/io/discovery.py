"""Finding of structure files: those named, those in folders, those that a pattern matches, and standard input."""

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

STDIN = "-"
SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")

_NAMES = tuple(suffix + packed for suffix in SUFFIXES for packed in ("", ".gz"))


@dataclass(frozen=True)
class Input:
    """A structure to be read: a file, or standard input."""

    path: str

    @property
    def source(self) -> str:
        """The path as it was given or found, in characters that every output takes; `-` for standard input."""
        return self.path.encode("utf-8", "backslashreplace").decode()

    def structure(self) -> Path | bytes:
        """What the client takes: the path, or what standard input holds."""
        return sys.stdin.buffer.read() if self.path == STDIN else Path(self.path)


def find(paths: Iterable[str], problem: Callable[[str, str], None]) -> Iterator[Input]:
    """The structures that the paths mean, in their order; within a folder or pattern, sorted by name.

    A folder means the files below it with a suffix of SUFFIXES, and .gz of those, hidden ones left out. A path that
    does not exist is a pattern; what exists by its name is taken by its name. A file named is taken whatever its
    suffix. problem: is told path and reason of what means nothing.
    """
    for path in paths:
        if path == STDIN:
            yield Input(path)
            continue
        matches = [path] if Path(path).exists() or not glob.has_magic(path) else _matches(path)
        if not matches:
            problem(path, "no file matches this pattern")
        for match in matches:
            if not Path(match).is_dir():
                yield Input(match)  # if it does not exist, reading it will say so
                continue
            below = [*_below(match, problem)]
            if not below:
                problem(match, f"no structure files ({', '.join(SUFFIXES)}, or .gz of those) in this folder")
            yield from map(Input, below)


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (the path stays as it was written)


def _below(folder: str, problem: Callable[[str, str], None]) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        problem(str(error.filename), error.strerror or str(error))

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(_NAMES) and not name.startswith("."):
                yield os.path.join(parent, name)  # noqa: PTH118 (the path stays as it was written)
