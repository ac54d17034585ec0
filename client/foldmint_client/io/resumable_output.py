"""Where `foldmint tokenize` writes to: outputs that an interrupted run can be resumed on, and files in parts."""

import os
import re
import shutil
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from foldmint_client.errors import InvalidOptions
from foldmint_client.io.resume import ResumeState, read_lines, read_shards
from foldmint_client.io.token_writers import JsonlWriter, OutputFormat, ParquetWriter, Writer, completed, opened
from foldmint_client.models.responses import Tokens

_SHARD = re.compile(r"part-(\d{5,})\.parquet")
_UNFINISHED = re.compile(r"\.part-\d{5,}\.parquet\.[0-9a-f]{8}\.part")


class Output(NamedTuple):
    """A writer, and what the output holds before it writes."""

    writer: Writer
    resume_state: ResumeState


def unfinished(path: Path) -> Path:
    """The path of a file's JSON lines until it is complete."""
    path = path.resolve()
    return path.with_name(f"{path.name}.part")


@contextmanager
def output(
    form: OutputFormat,
    path: Path | None,
    *,
    rows_per_shard: int = 0,
    resumed: Container[str] | None = None,
    insertion_codes: bool = False,
) -> Iterator[Output]:
    """A writer to a file, a folder of shards (rows_per_shard above 0), or standard output (path is None).

    A file gets its name when it is complete. Until then, JSON lines are in FILE.part, which stays if the run is
    interrupted. resumed: the sources requested by a run that continues the output; None for a new run. Raises
    InvalidOptions if another run writes to the output, or a new run would overwrite an interrupted one.
    """
    if rows_per_shard and path is not None:
        with _shards(path, rows_per_shard, resumed is not None) as found:
            yield found
    elif form is OutputFormat.JSONL and path is not None and (path.is_file() or not path.exists()):
        with _lines(path, resumed) as (stream, resume_state):
            yield Output(JsonlWriter(stream, insertion_codes=insertion_codes), resume_state)
    else:
        with opened(form, path, insertion_codes=insertion_codes) as writer:
            yield Output(writer, ResumeState())


@contextmanager
def _lines(path: Path, resumed: Container[str] | None) -> Iterator[tuple[IO[bytes], ResumeState]]:
    path, part = path.resolve(), unfinished(path)
    with part.open("a+b") as stream:
        _lock(stream.fileno(), part)
        if not part.exists() or not os.path.samestat(part.stat(), os.fstat(stream.fileno())):
            raise InvalidOptions(f"another run has just finished {path}")
        left = os.fstat(stream.fileno()).st_size
        if left and resumed is None:
            raise InvalidOptions(f"{part} is from an interrupted run: continue it with --resume, or remove the file")
        resume_state, start = ResumeState(), 0
        if resumed is not None:
            if not left and path.exists():
                with path.open("rb") as complete:
                    shutil.copyfileobj(complete, stream)
                stream.flush()
            try:
                stream.seek(0)
                resume_state, start = read_lines(stream, str(part if left else path), resumed)
            except InvalidOptions:
                if not left:
                    part.unlink()
                raise
            stream.truncate(start)
        try:
            yield stream, resume_state
            stream.flush()
            os.fsync(stream.fileno())
            part.replace(path)
        except BaseException:
            if os.fstat(stream.fileno()).st_size == start and not (left and start):
                part.unlink()  # there is nothing in it that is not elsewhere
            raise


@contextmanager
def _shards(folder: Path, rows: int, resume: bool) -> Iterator[Output]:
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        there = {int(match[1]): path for path in folder.iterdir() if (match := _SHARD.fullmatch(path.name))}
        if there and not resume:
            raise InvalidOptions(f"there are shards in {folder}: continue with --resume, or remove them")
        resume_state = read_shards(there[number] for number in sorted(there))
        for path in folder.iterdir():
            if _UNFINISHED.fullmatch(path.name):
                path.unlink()  # of a run that was killed
        writer = ShardWriter(folder, rows, first=max(there, default=-1) + 1)
        try:
            yield Output(writer, resume_state)
        finally:
            writer.close()  # after an error too: results so far are kept
    finally:
        os.close(descriptor)


class ShardWriter:
    """Files part-00000.parquet, part-00001.parquet, ... in a folder, each complete by itself, or absent.

    rows: a shard ends with the structure that brings it to so many; the chains of a structure are never parted. first:
    the number of the first shard.
    """

    def __init__(self, folder: Path, rows: int, first: int = 0) -> None:
        self._folder, self._most, self._number, self._rows = folder, rows, first, 0
        self._shard = ExitStack()
        self._writer: ParquetWriter | None = None

    def write(self, source: str, tokens: Tokens) -> None:
        """Add a structure's chains."""
        if self._writer is None:
            self._writer = self._open()
        self._writer.write(source, tokens)
        self._rows += len(tokens.chains)
        if self._rows >= self._most:
            self.close()

    def close(self) -> None:
        """Complete the current shard, if there is one."""
        shard, self._shard, self._writer = self._shard, ExitStack(), None
        self._number += bool(self._rows)
        self._rows = 0
        shard.close()

    def _open(self) -> ParquetWriter:
        return self._shard.enter_context(_parquet(self._folder / f"part-{self._number:05}.parquet"))


@contextmanager
def _parquet(path: Path) -> Iterator[ParquetWriter]:
    with completed(path) as stream:
        writer = ParquetWriter(stream)
        try:
            yield writer
        finally:
            writer.close()


def _lock(descriptor: int, path: Path) -> None:
    """Lock out a second run until the process ends; a no-op where such locks do not exist."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InvalidOptions(f"another run is writing {path}") from error
