"""Tokenizes more structures than one process can: units of work that any engine can run.

from foldmint_bulk import Worker, units

with Worker("s3://bucket/out", device="cuda") as worker:
    for unit in units("s3://bucket/out"):
        worker(unit)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foldmint_bulk.errors import (
        BulkError,
        InvalidInput,
        JobDiffers,
        OutputError,
        Unfinished,
        UnreadableInput,
        WorkerFailed,
    )
    from foldmint_bulk.job import Job, JobOptions
    from foldmint_bulk.library import create_job, finish, units
    from foldmint_bulk.output.records import Record
    from foldmint_bulk.unit import Unit, Units
    from foldmint_bulk.worker import Worker, WorkerSettings

__all__ = [
    "BulkError",
    "InvalidInput",
    "Job",
    "JobDiffers",
    "JobOptions",
    "OutputError",
    "Record",
    "Unfinished",
    "Unit",
    "Units",
    "UnreadableInput",
    "Worker",
    "WorkerFailed",
    "WorkerSettings",
    "create_job",
    "finish",
    "units",
]

# Loaded when asked for, so that processes that parse load nothing else.
_MODULES = {
    "BulkError": "errors",
    "InvalidInput": "errors",
    "Job": "job",
    "JobDiffers": "errors",
    "JobOptions": "job",
    "OutputError": "errors",
    "Record": "output.records",
    "Unit": "unit",
    "Units": "unit",
    "Unfinished": "errors",
    "UnreadableInput": "errors",
    "Worker": "worker",
    "WorkerFailed": "errors",
    "WorkerSettings": "worker",
    "create_job": "library",
    "finish": "library",
    "units": "library",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"foldmint_bulk.{_MODULES[name]}"), name)
