"""What the commands of `foldmint-maintenance` share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

STOPPED = 130  # what shells report of a program ended by SIGINT

Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores unless told.")]


@contextmanager
def faults() -> Iterator[None]:
    """Turn expected errors into one message on stderr and an exit code."""
    from foldmint_maintenance.errors import MaintenanceError, TrainingStopped
    from foldmint_tokenizer.errors import TokenizerError

    try:
        yield
    except TrainingStopped as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(STOPPED) from stopped
    except (MaintenanceError, TokenizerError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a ValueError of a config, whose message names the setting, into a usage error."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def use_threads(threads: int | None) -> None:
    """Compute on so many threads of the CPU; None: as many as torch takes."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
