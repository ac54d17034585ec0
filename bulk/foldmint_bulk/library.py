"""The steps of a job, for programs: create and plan it, do its units, finish it."""

from collections import Counter
from collections.abc import Sequence

from foldmint_bulk import finishing, storage
from foldmint_bulk.errors import InvalidInput, OutputError, Unfinished
from foldmint_bulk.job import Job, JobOptions, identify, slice_of
from foldmint_bulk.output.completion import left, recorded
from foldmint_bulk.output.summaries import Summary
from foldmint_bulk.planning import check_inputs, load_units, plan
from foldmint_bulk.unit import Units


def create_job(
    inputs: Sequence[str],
    out: str,
    *,
    model: str | None = None,
    codebook_version: str | None = None,
    options: JobOptions | None = None,
) -> Job:
    """Create and plan a job, or go on with one that has the same model, options and inputs.

    inputs: files, folders, patterns or URLs. out: location of the output. Raises JobDiffers, InvalidInput, OutputError,
    and ModelError.
    """
    options = options or JobOptions()
    if load_units(out) is None:
        check_inputs(inputs, options.inputs)
    identity, _ = identify(model, codebook_version)
    job = Job(out, identity, options, tuple(inputs)).begin()
    plan(job, Counter())
    return job


def finish(out: str) -> Summary:
    """Sum up a job, write usage.json, failures.parquet and DONE. Raises Unfinished if units have no record."""
    job, found = Job.load(out), load_units(out)
    if found is None:
        raise Unfinished(f"{out} is not planned yet")
    with storage.in_parallel() as executor:
        missing = len(found) - int(recorded(storage.open_output(out), len(found), executor).sum())
    if missing:
        raise Unfinished(f"{missing} of {len(found)} units of {out} have no record yet")
    return finishing.finish(job, len(found))


def units(out: str, slice: tuple[int, int] = (0, 1)) -> Units:  # noqa: A002 (the option's name)
    """The units of a job that have no record yet, in order. slice: (I, N), of N slices that with number I, from 0 on.

    Raises OutputError if there is no job at the location.
    """
    found = load_units(out)
    if found is None:
        raise OutputError(f"{out}: no job found here, or its units are not planned yet")
    index, count = slice
    if not 0 <= index < count:
        raise InvalidInput(f"slice {index} of {count}: numbers from 0 to {count - 1} are wanted")
    with storage.in_parallel() as executor:
        done = recorded(storage.open_output(out), len(found), executor)
    return found.select(left(done, slice_of(range(len(found)), index, count)))
