"""Structures that Foldcomp compressed: alone (.fcz), and in its databases."""

import importlib.util
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import IO, Self

from foldmint_client.errors import InvalidStructure, MissingExtra, UnreadableInput
from foldmint_client.io.foldcomp_worker import LENGTH

_MAGIC = b"FCMP"
# Residues, atoms, first residue and atom, anchors, chain, padding, side-chain angles, ends, padding, length of title.
_HEADER = struct.Struct("<4sHHHHBcxxIccxxI")
_SECONDS = 60.0
_MAX_BYTES = 16 * 2**20  # of an entry; 65,535 residues, the most that the format holds, take 2


INDEX, LOOKUP = ".index", ".lookup"
"""Suffixes of the files beside a database, of which the second one is optional."""

BESIDE = (INDEX, ".dbtype")
"""Suffixes of the files by which a database is known."""


def is_database(path: Path) -> bool:
    """Whether a file is a database of Foldcomp: one that has an index and a type beside it."""
    return path.is_file() and all(path.with_name(path.name + suffix).is_file() for suffix in BESIDE)


class Foldcomp:
    """Decompresses structures, in a process of its own; to be closed.

    Raises MissingExtra if the library is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("foldcomp") is None:
            raise MissingExtra("Foldcomp's files need its library: pip install 'foldmint[foldcomp]'")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def pdb(self, content: bytes) -> bytes:
        """The PDB file of a structure. Raises InvalidStructure if it is damaged."""
        residues = _residues(content)
        answer = self._asked(content)
        # Its library does not say so if what it makes of a structure is another one.
        found = sum(line.startswith(b"ATOM") and line[12:16] == b" CA " for line in answer.splitlines())
        if found != residues:
            raise InvalidStructure("the Foldcomp data is damaged")
        return answer

    def _asked(self, content: bytes) -> bytes:
        process = self._process = self._process or subprocess.Popen(
            [sys.executable, "-m", "foldmint_client.io.foldcomp_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the process has pipes")
        timer = Timer(_SECONDS, process.kill)
        timer.start()
        try:
            process.stdin.write(LENGTH.pack(len(content)) + content)
            process.stdin.flush()
            head = process.stdout.read(LENGTH.size)
            answer = process.stdout.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""
        except BrokenPipeError:
            answer = b""
        finally:
            timer.cancel()
        if process.poll() is not None or not answer:
            self.close()
        return answer


@dataclass(frozen=True)
class Entry:
    """An entry of a database's index. start, length: bytes of the database. name: the lookup's, otherwise the key."""

    key: str
    name: str
    start: int
    length: int

    def read(self, data: IO[bytes], size: int) -> bytes | InvalidStructure:
        """What Foldcomp compressed, or the error if the entry is beyond the size of the database or too long."""
        if self.length > _MAX_BYTES or self.start + self.length > size:
            return InvalidStructure(f"entry {self.key} of the database is out of range")
        data.seek(self.start)
        return data.read(self.length).removesuffix(b"\0")


def entries(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | InvalidStructure]]:
    """The selected entries of a database, by name, as Foldcomp compressed them, in the order of its index.

    Raises UnreadableInput if its index is damaged.
    """
    lookup = path.with_name(path.name + LOOKUP)
    names = _lines(lookup) if lookup.is_file() else iter(())
    with path.open("rb") as data:
        size = data.seek(0, 2)
        for entry in index_entries(_lines(path.with_name(path.name + INDEX)), names, f"{path}{INDEX}"):
            if wanted(entry.name):
                yield entry.name, entry.read(data, size)


def index_entries(index: Iterable[bytes], lookup: Iterable[bytes], what: str, first: int = 1) -> Iterator[Entry]:
    """The entries in lines of an index. Names come from the lookup's lines, where they have the same keys.

    what: the index, and first: number of its first line, for messages. Raises UnreadableInput for a damaged line.
    """
    names = iter(lookup)
    for number, line in enumerate(index, first):
        named = _cells(next(names, b""))
        cells = _cells(line)
        try:
            key, start, length = cells[0], int(cells[1]), int(cells[2])
            if start < 0 or length < 0:
                raise ValueError(line)
        except (ValueError, IndexError) as error:
            raise UnreadableInput(f"{what}: line {number} is damaged") from error
        own = named[0] == key and len(named) > 1 and named[1]
        yield Entry(key, named[1] if own else key, start, length)


def _cells(line: bytes) -> list[str]:
    return line.decode("utf-8", "backslashreplace").rstrip("\r\n").split("\t")


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as lines:
        yield from lines


def _residues(content: bytes) -> int:
    """How many residues a structure has, as its header says. Raises InvalidStructure if it is shorter than that."""
    if not content.startswith(_MAGIC):
        raise InvalidStructure("this is not Foldcomp data")
    if len(content) >= _HEADER.size:
        _, residues, _, _, _, anchors, _, angles, _, _, title = _HEADER.unpack_from(content)
        # Title; 21 bytes of bounds, anchors of 40; 9 a residue; an angle a byte.
        if residues and len(content) >= _HEADER.size + 48 + title + 21 + 40 * anchors + 9 * residues + angles:
            return int(residues)
    raise InvalidStructure("the Foldcomp data is truncated")
