"""Plans a job: finds its inputs, divides them into units, and writes the table of units once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from foldmint_bulk.errors import InvalidInput
from foldmint_bulk.inputs.files import find_files
from foldmint_bulk.inputs.registry import KINDS, kind_of
from foldmint_bulk.job import Job
from foldmint_bulk.storage import create, open_output, read
from foldmint_bulk.unit import Unit, Units

TABLE = "units.parquet"


def load_units(out: str) -> Units | None:
    """The units of a job, None if it is not planned yet. Raises OutputError."""
    try:
        return Units.from_parquet(read(open_output(out), TABLE))
    except FileNotFoundError:
        return None


def plan(job: Job, skipped: Counter[str]) -> Units:
    """The units of a job. If it is not planned yet, find them and write their table; of several processes, one wins.

    skipped: counts the files of folders that are no inputs, by suffix. Raises InvalidInput; OutputError.
    """
    found = load_units(job.out)
    if found is not None:
        return found
    units = Units.of(planned(job, skipped))
    if not len(units):
        raise InvalidInput("there are no inputs")
    try:
        create(open_output(job.out), TABLE, units.to_parquet())
    except FileExistsError:
        found = load_units(job.out)
        return units if found is None else found
    return units


def planned(job: Job, skipped: Counter[str]) -> Iterator[Unit]:
    """The units of a job's inputs, in order."""
    # A file named is an input whatever its name: one of a structure, if no kind claims it.
    found = ((path, kind or KINDS["files"]) for path, kind in find_files(job.inputs, kind_of, skipped))
    for kind, group in groupby(found, key=lambda pair: pair[1].name):
        members = [path for path, _ in group]
        yield from KINDS[kind].plan(members, job.options.unit_structures, job.options.inputs)


def check_inputs(inputs: Sequence[str]) -> None:
    """Raise InvalidInput if one of the inputs does not exist, or has no structures, before anything is begun."""
    for given in inputs:
        next(find_files([given], kind_of, Counter()))
