"""The unit function: reads, parses, tokenizes and writes a unit.

worker = Worker("s3://bucket/out", device="cuda")
record = worker(unit)
"""

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from foldmint_bulk import storage
from foldmint_bulk.ahead import ahead
from foldmint_bulk.batches import BatchTokenizer, Tokenized
from foldmint_bulk.errors import OutputError
from foldmint_bulk.inputs.registry import KINDS
from foldmint_bulk.job import Job
from foldmint_bulk.output import parts, records
from foldmint_bulk.output.records import Record
from foldmint_bulk.parsing.pool import ParserLimits, ParserPool
from foldmint_bulk.parsing.results import Failure
from foldmint_bulk.unit import Unit

# Structures that a GPU may have computed before the first of them is written.
_WRITTEN_LATER = 2_000


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker runs; none of it changes its output.

    device: as torch names it; `auto` takes a GPU if there is one, and workers of one machine share out its GPUs.
    parsers: processes that parse; None: 1, with a GPU one for each thread. threads: of the CPU; None: as many as there
    are cores. limits: of each parser. number: of the worker, on its machine.
    """

    device: str = "auto"
    parsers: int | None = None
    threads: int | None = None
    limits: ParserLimits = field(default_factory=ParserLimits)
    number: int = 0


@dataclass
class Progress:
    """Of a worker's current unit: what was done since the last report."""

    structures: int = 0
    residues: int = 0
    failures: int = 0


class Worker:
    """Does units of a job, one after another; not thread-safe. To be closed, or used in a `with` block.

    job: a job, or the location of one that was planned. Each call does one unit and returns its record as a row of
    plain values, the record that is there if the unit is done already. Raises JobDiffers if the store no longer has the
    job's model; OutputError if the output cannot be written.
    """

    def __init__(
        self,
        job: Job | str,
        settings: WorkerSettings | None = None,
        *,
        report: Callable[[Progress], object] = lambda _: None,
        **options: Any,  # noqa: ANN401 (fields of WorkerSettings)
    ) -> None:
        self.job = Job.load(job) if isinstance(job, str) else job
        self.settings = settings or WorkerSettings(**options)
        self._files = storage.open_output(self.job.out)
        self._report = report
        own = self.settings
        self._tokenizer = BatchTokenizer(self.job, own.device, own.threads, own.number)
        parsers = own.parsers
        if parsers is None:
            parsers = 1 if self._tokenizer.device == "cpu" else own.threads or len(os.sched_getaffinity(0))
        self._parsers = ParserPool(parsers, own.limits, self.job.options.reading)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the parsers."""
        self._parsers.close()

    def __call__(self, unit: Unit | Mapping[str, Any]) -> dict[str, Any]:
        """Do a unit, and return its record."""
        unit = Unit.of(unit)
        return (records.read_record(self._files, unit.id) or self._done(unit)).row()

    def _done(self, unit: Unit) -> Record:
        """Do a unit. The part is written whole, then the record, which decides between attempts."""
        began, attempt = time.monotonic(), secrets.token_hex(4)
        result = _Result(self._tokenizer.codes)
        self._tokenizer.device_seconds = 0.0
        name = parts.part_name(unit.id, attempt)
        with storage.writing(self._files, name) as stream:
            writer = parts.part_writer(stream, self.job.model, unit.id)
            try:
                for one in self._structures(unit, result):
                    writer.write(one.source, one.tokens)
                    result.add(one)
                    self._report(Progress(1, len(one.tokens)))
            finally:
                writer.close()
        failures_file = ""
        if result.failures:
            failures_file = parts.failures_name(unit.id, attempt)
            with storage.writing(self._files, failures_file) as stream:
                parts.write_failures(stream, result.failures, unit.id)
        record = Record(
            unit.id,
            attempt,
            name,
            failures_file,
            result.structures,
            result.chains,
            result.residues,
            int(result.hits.sum()),
            parts.counted(result.failures),
            hits=records.pack_hits(result.hits),
            skipped=dict(result.skipped),
            seconds=round(time.monotonic() - began, 3),
            device_seconds=round(self._tokenizer.device_seconds, 3),
        )
        try:
            records.create_record(self._files, record)
        except FileExistsError:
            # Another attempt was faster. What this one wrote is not named by a record.
            for own in filter(None, (name, failures_file)):
                storage.remove(self._files, own)
            found = records.read_record(self._files, unit.id)
            if found is None:
                raise OutputError(f"{self._files.path(records.name_of(unit.id))} was there, and is gone") from None
            return found
        return record

    def _structures(self, unit: Unit, result: "_Result") -> Iterator[Tokenized]:
        raw = KINDS[unit.kind].read(unit, self.job.options.inputs, result.skipped)
        with closing(self._parsers.parse(raw, unit.name)) as parsed:
            tokenized: Iterable[Tokenized | Failure] = self._tokenizer.tokenized(parsed)
            with ExitStack() as opened:
                if self._tokenizer.device != "cpu":  # a GPU computes while what it has computed is written
                    tokenized = opened.enter_context(closing(ahead(tokenized, _WRITTEN_LATER)))
                for one in tokenized:
                    if isinstance(one, Failure):
                        result.failures.append(one)
                        self._report(Progress(failures=1))
                    else:
                        yield one


class _Result:
    """What was done of a unit so far. hits: (codes,)."""

    def __init__(self, codes: int) -> None:
        self.hits = np.zeros(codes, np.int64)
        self.failures = list[Failure]()
        self.skipped = Counter[str]()
        self.structures = self.chains = self.residues = 0

    def add(self, one: Tokenized) -> None:
        """Count a structure in."""
        self.structures += 1
        self.chains += len(one.tokens.chains)
        self.residues += len(one.tokens)
        self.hits += one.hits
