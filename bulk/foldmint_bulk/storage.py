"""Reads and writes a job's own files; every failure is an OutputError."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, TypeVar

from foldmint_bulk.errors import OutputError
from foldmint_tokenizer.store.storage import Files

T = TypeVar("T")
CONCURRENT = 32
"""Requests at a time; an object store answers each in tens of milliseconds."""


def open_output(location: str) -> Files:
    """The files of an output. Raises OutputError if the location cannot be reached."""
    try:
        return Files(location)
    except OSError as error:
        raise OutputError(str(error)) from error


def read(files: Files, name: str) -> bytes:
    """A file's content. Raises FileNotFoundError if it does not exist."""
    with _failures(files, name):
        return files.read(name)


def create(files: Files, name: str, content: bytes) -> None:
    """Write a file that must not exist. Raises FileExistsError."""
    with _failures(files, name):
        files.create(name, content)


def write(files: Files, name: str, content: bytes) -> None:
    """Write a file, or replace it."""
    with _failures(files, name):
        files.write(name, content)


@contextmanager
def writing(files: Files, name: str) -> Iterator[IO[bytes]]:
    """A stream to a new file, which appears whole when the block ends, or not at all."""
    with _failures(files, name), files.writing(name) as stream:
        yield stream


def remove(files: Files, name: str) -> None:
    """Remove a file, if it exists."""
    with _failures(files, name):
        files.remove(name)


def names(files: Files, folder: str) -> list[str]:
    """The names directly in a folder, sorted; empty if it does not exist."""
    with _failures(files, folder):
        return files.names(folder)


def in_parallel() -> ThreadPoolExecutor:
    """A pool for requests to an output."""
    return ThreadPoolExecutor(CONCURRENT, "output")


@contextmanager
def _failures(files: Files, name: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, FileNotFoundError, OutputError):
        raise
    except OSError as error:
        reason = f"{files.path(name)}: {error.strerror}" if error.strerror else str(error)
        raise OutputError(reason) from error
