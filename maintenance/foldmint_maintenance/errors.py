"""What can go wrong off line, beside the tokenizer's own errors.

MaintenanceError
├── InvalidSet           a set of backbones that cannot be read or used
├── InvalidRecipe        a recipe that cannot be read, or asks for what is not there
├── CheckpointMismatch   a checkpoint that belongs to another training, or a folder that holds a finished one
├── TrainingStopped      asked to stop: a checkpoint has been left
├── InvalidCodebook      a file that cannot become a version of a store's codebook
├── StoreDamaged         a store, or a version of its codebook, that did not pass its verification
├── OtherVersion         counts of codes that are of another version of the codebook than is active
├── ActivationFailed     a server that did not serve a new version as it should; all were brought back
├── PreflightFailed      what a repair needs and does not have, found before it began
├── UsageUnknown         counts of codes that a source does not have, or that cannot be compared
└── MetricsExportError   metrics of the job that cannot be written or pushed
"""


class MaintenanceError(Exception):
    """Root of all errors that maintenance raises on purpose."""


class InvalidSet(MaintenanceError, ValueError):
    """A set of backbones that cannot be read or used."""


class InvalidRecipe(MaintenanceError, ValueError):
    """A recipe of a training that cannot be followed."""


class CheckpointMismatch(MaintenanceError, ValueError):
    """A folder whose training is not the one asked for."""


class TrainingStopped(MaintenanceError):
    """A training that was asked to stop and can go on later."""


class InvalidCodebook(MaintenanceError, ValueError):
    """A file that cannot become a version of a store's codebook."""


class StoreDamaged(MaintenanceError):
    """A store with files that are missing or do not fit."""


class OtherVersion(MaintenanceError, ValueError):
    """Counts of codes that are of another version of the codebook than is active."""


class ActivationFailed(MaintenanceError):
    """A server that did not serve a new version as it should."""


class PreflightFailed(MaintenanceError):
    """What a repair needs and does not have, found before it began."""


class UsageUnknown(MaintenanceError):
    """Counts of codes that a source does not have, or that cannot be compared."""


class GroupBroken(MaintenanceError):
    """A process of the group has ended before the others."""


class MetricsExportError(MaintenanceError):
    """Metrics of the job that cannot be written or pushed."""
