"""The errors of bulk jobs.

BulkError
├── JobDiffers      a job is resumed with other inputs, options or another model
├── InvalidInput    an input that cannot be planned: not found, or of no known kind
├── UnreadableInput an input that is damaged or cannot be read, from some point on
├── Unfinished      a job that is to be summed up has units without a record
├── OutputError     the output cannot be read or written: the job can go on once it can
└── WorkerFailed    a worker process cannot start, or cannot go on
"""


class BulkError(Exception):
    """Base class of the errors that bulk jobs raise deliberately."""


class JobDiffers(BulkError):
    """A job at this location has another model, other options or other inputs."""


class InvalidInput(BulkError, ValueError):
    """An input that does not exist, or that no kind of input claims."""


class UnreadableInput(BulkError):
    """An input that is damaged, cut off, or cannot be read. What was read before stays valid."""


class Unfinished(BulkError):
    """A job that is to be summed up has units without a record."""


class OutputError(BulkError, OSError):
    """The job's own files cannot be read or written."""


class WorkerFailed(BulkError):
    """A worker process cannot start or cannot go on, whatever its unit."""
