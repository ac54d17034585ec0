"""Plans a job: finds its inputs, divides them into units, and writes the table of units once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from foldmint_bulk.errors import InvalidInput
from foldmint_bulk.inputs.base import InputOptions
from foldmint_bulk.inputs.files import find_files, refuse_credentials
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

    skipped: counts the files of folders, and the members of archives, that are no structures, by suffix. Raises
    InvalidInput; OutputError.
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
    """The units of a job's inputs, in order. skipped: as for `plan`."""
    # A file named is an input whatever its name: one of a structure, if no kind claims it.
    found = ((path, kind or KINDS["files"]) for path, kind in find_files(job.inputs, kind_of, skipped))
    for kind, group in groupby(found, key=lambda pair: pair[1].name):
        members = [path for path, _ in group]
        yield from KINDS[kind].plan(members, job.options.unit_structures, job.options.inputs, skipped)


def check_inputs(inputs: Sequence[str], options: InputOptions | None = None) -> None:
    """Raise InvalidInput, before anything is begun, if one of the inputs does not exist or has no structures.

    Also if the first file of an input needs a library that is not installed, or does not fit the options.
    """
    refuse_credentials(options.topology if options else "")
    for given in inputs:
        path, kind = next(find_files([given], kind_of, Counter()))
        (kind or KINDS["files"]).check(path, options or InputOptions())
