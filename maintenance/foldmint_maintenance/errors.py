"""What can go wrong off line, beside the tokenizer's own errors.

MaintenanceError
├── InvalidSet          a set of backbones that cannot be read or used
├── InvalidRecipe       a recipe that cannot be read, or asks for what is not there
├── OtherTraining       a checkpoint that belongs to another training, or a folder that holds a finished one
└── TrainingStopped     asked to stop: a checkpoint has been left
"""


class MaintenanceError(Exception):
    """Root of all errors that maintenance raises on purpose."""


class InvalidSet(MaintenanceError, ValueError):
    """A set of backbones that cannot be read or used."""


class InvalidRecipe(MaintenanceError, ValueError):
    """A recipe of a training that cannot be followed."""


class OtherTraining(MaintenanceError, ValueError):
    """A folder whose training is not the one asked for."""


class TrainingStopped(MaintenanceError):
    """A training that was asked to stop and can go on later."""
