"""Finishes a job: completes the summaries of its shards, and sums them up."""

import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from foldmint.usage import perplexity
from foldmint_bulk import storage
from foldmint_bulk.errors import OutputError
from foldmint_bulk.job import Job
from foldmint_bulk.output import parts, records, summaries
from foldmint_bulk.output.summaries import Summary
from foldmint_bulk.parsing.results import INVALID
from foldmint_bulk.unit import SHARD, unit_id
from foldmint_tokenizer.store.storage import Files

T = TypeVar("T")
USAGE = "usage.json"
FAILURES = "failures.parquet"
DONE = "DONE"


def finish(job: Job, total: int) -> Summary:
    """Finish a job, all of whose units have records, and return their sum.

    Writes usage.json, failures.parquet and, unless units failed, DONE. Several processes may do so at once. total:
    units of the job. Raises OutputError if a record or a part is missing.
    """
    files = storage.open_output(job.out)
    with storage.in_parallel() as executor:
        _summarize_rest(files, total, executor)
        result, failing = Summary(), list[int]()
        shards = range(-(-total // SHARD))
        read = _ahead(executor, partial(summaries.read_summary, files), shards)
        for shard, summary in zip(shards, read, strict=True):
            result.merge(summary)
            if summary.failing:
                failing.append(shard)
        _write_failures(files, failing, result, executor)
    if files.local:
        for folder in ("", summaries.FOLDER):
            summaries.sweep(files, folder)
    storage.write(files, USAGE, _usage(job, result))
    if result.units != total:
        raise OutputError(f"{job.out}: {result.units} records for {total} units")
    if not result.errors:
        with suppress(FileExistsError):
            storage.create(files, DONE, _done(job, result))
    return result


def reopen(files: Files, total: int, executor: Executor) -> int:
    """Remove the records of units that failed, or have failures that another try may not; returns how many."""
    storage.remove(files, DONE)
    complete, units = set(summaries.summarized(files)), list[str]()
    for shard in range(-(-total // SHARD)):
        if shard in complete:
            summary = summaries.read_summary(files, shard)
            found = {unit: kinds for unit, kinds in summary.failing.items() if set(kinds) - {INVALID}}
            again = sorted({*summary.errors, *found})
            if again:
                summaries.remove_summary(files, shard)
        else:
            numbers = summaries.shard_units(shard, total)
            read = executor.map(lambda number: records.read_record(files, unit_id(number)), numbers)
            again = [one.unit for one in read if one is not None and (one.error or set(one.failures) - {INVALID})]
        units += again
    list(executor.map(lambda unit: storage.remove(files, records.name_of(unit)), units))
    return len(units)


def _summarize_rest(files: Files, total: int, executor: Executor) -> None:
    complete = set(summaries.summarized(files))
    for shard in range(-(-total // SHARD)):
        if shard not in complete:
            summaries.summarize(files, shard, total, {}, executor)


def _write_failures(files: Files, shards: Iterable[int], result: Summary, executor: Executor) -> None:
    """Write the failures of all units, and those of units that failed as a whole."""
    import pyarrow as pa
    from pyarrow import parquet

    stream = io.BytesIO()
    with parquet.ParquetWriter(stream, parts.failure_schema(), compression="zstd") as writer:
        for table in _ahead(executor, partial(summaries.read_failures, files), shards):
            writer.write_table(table)
        rows = [
            {"unit": unit, "source": source, "kind": "UnitFailed", "reason": reason}
            for unit, (source, reason) in sorted(result.errors.items())
        ]
        writer.write_table(pa.Table.from_pylist(rows, parts.failure_schema()))
    storage.write(files, FAILURES, stream.getvalue())


def _ahead(executor: Executor, read: Callable[[int], T], shards: Iterable[int]) -> Iterator[T]:
    """What is read of shards, in order; a bounded number is read ahead."""
    waiting = deque[Future[T]]()
    for shard in shards:
        waiting.append(executor.submit(read, shard))
        if len(waiting) > 2 * storage.CONCURRENT:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _usage(job: Job, result: Summary) -> bytes:
    """The hits of all codes, in the form that `foldmint-maintenance usage --json FILE --counts` writes."""
    hits = result.hits
    fields = {
        "source": f"residues of {job.out}",
        "model": job.model.name,
        "encoder_sha256": job.model.encoder_digest,
        "codebook_sha256": job.model.codebook_digest,
        "version": job.model.codebook_version,
        "assignment": job.options.assignment,
        "codes": len(hits),
        "residues": int(hits.sum()),
        "never_hit": int((hits == 0).sum()),
        "perplexity": perplexity(hits),
        "utilization": float((hits > 0).mean()) if len(hits) else 0.0,
        "counts": hits.tolist(),
    }
    return (json.dumps(fields) + "\n").encode()


def _done(job: Job, result: Summary) -> bytes:
    fields = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "units": result.units,
        "structures": result.structures,
        "chains": result.chains,
        "residues": result.residues,
        "failures": dict(sorted(result.failures.items())),
        "model": job.model.name,
        "codebook_version": job.model.codebook_version,
    }
    return (json.dumps(fields, indent=2) + "\n").encode()
