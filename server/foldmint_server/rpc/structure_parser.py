"""Parses the structures of requests: small ones in threads, large files in child processes.

Reading a large file takes seconds, in which a thread would often keep the interpreter from everything else.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple, ParamSpec, TypeVar

import structlog

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.errors import Stopping
from foldmint_server.metrics.registry import Metrics
from foldmint_server.rpc.requests import file_errors, parse_backbones, read_options
from foldmint_server.tracing.spans import stage_span
from foldmint_tokenizer import InvalidStructure, Limits, ReadOptions, read_structure
from foldmint_tokenizer.errors import ParserKilled
from foldmint_tokenizer.neighborhoods import structure_geometry
from foldmint_tokenizer.parsing.messages import Parsed
from foldmint_tokenizer.parsing.process import ParserProcess
from foldmint_tokenizer.structure.formats.decompress import is_larger
from foldmint_tokenizer.structure.options import Reading

log = structlog.get_logger(__name__)
P = ParamSpec("P")
R = TypeVar("R")

LARGE_BYTES = 2**20
"""Files of more bytes, decompressed, are read in child processes."""
_MEMORY = 32  # times the bytes of the largest file
_NICENESS = 5  # of child processes: requests of others go first


class StructureParser:
    """Parses structures of requests; to be closed.

    limits: of a structure. reading: the default for files. processes: child processes for large files, which start
    with the first such file; 0: threads read all. seconds: that a large file may take.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        limits: Limits,
        metrics: Metrics,
        *,
        reading: Reading = "all",
        processes: int = 1,
        seconds: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reading: Reading = reading
        self._pool, self._limits, self._metrics, self._clock = pool, limits, metrics, clock
        # A thread for each process: it waits for it.
        self._waiting = ThreadPoolExecutor(processes, "parse-large") if processes else None
        self._closed = False
        self._processes: SimpleQueue[ParserProcess] = SimpleQueue()
        self._all = [
            ParserProcess(seconds=seconds, memory_bytes=_MEMORY * limits.unpacked_bytes, niceness=_NICENESS)
            for _ in range(processes)
        ]
        for process in self._all:
            self._processes.put(process)

    def close(self) -> None:
        """End the child processes; what they are reading fails."""
        self._closed = True
        if self._waiting is not None:
            self._waiting.shutdown(wait=False, cancel_futures=True)
        for process in self._all:
            process.close()

    async def parse(self, request: pb.TokenizeRequest) -> Parsed:
        """The structure of a request, and its geometry.

        Raises InvalidStructure, with the field's whole path, and Stopping if the parser was closed meanwhile.
        """
        began = self._clock()
        with stage_span("parse"):
            found = await in_thread(self._pool, self._in_thread, request)
            if isinstance(found, _Large):
                found = await in_thread(found.pool, self._in_process, found, request.options.complex)
        self._metrics.stage_seconds.labels("parse").observe(self._clock() - began)
        return found

    def _in_thread(self, request: pb.TokenizeRequest) -> "Parsed | _Large":
        """The structure, or what is needed to read a large file."""
        if request.WhichOneof("structure") == "file":
            options, content = read_options(request, self._limits, self.reading), request.file.content
            if self._waiting is not None and is_larger(content, LARGE_BYTES):
                return _Large(content, options, self._waiting)
            with file_errors():
                structure = read_structure(content, options)
        else:
            structure = parse_backbones(request, self._limits)
        return Parsed(structure, structure_geometry(structure.chains, request.options.complex))

    def _in_process(self, large: "_Large", complex_: bool) -> Parsed:
        process = self._processes.get()
        try:
            with file_errors():
                try:
                    return self._read(process, large, complex_)
                except ParserKilled as error:
                    if error.limit:
                        raise InvalidStructure("content", str(error)) from error
                try:  # somebody else may have ended the first process, such as a machine without memory
                    return self._read(process, large, complex_)
                except ParserKilled as error:
                    raise InvalidStructure("content", f"the file cannot be read: {error}, twice") from error
        finally:
            self._processes.put(process)

    def _read(self, process: ParserProcess, large: "_Large", complex_: bool) -> Parsed:
        try:
            return process.parse(large.content, large.options, complex=complex_)
        except ParserKilled as error:
            if self._closed:
                raise Stopping("the server is stopping") from error
            self._metrics.parsers_killed.labels("limit" if error.limit else "crash").inc()
            log.warning("parser killed", reason=str(error), bytes=len(large.content))
            raise


class _Large(NamedTuple):
    """A large file, and the threads that wait for the processes that read such files."""

    content: bytes
    options: ReadOptions
    pool: ThreadPoolExecutor


async def in_thread(pool: ThreadPoolExecutor, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a thread of the pool, within the current span."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, partial(copy_context().run, function, *args, **kwargs))
