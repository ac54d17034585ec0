"""What the commands of `foldmint-maintenance` share."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from foldmint_client.connection import ConnectionOptions

LOCKED = 4
NOT_ACTIVATED = 5
STOPPED = 130  # what shells report of a program ended by SIGINT

StoreOption = Annotated[
    str, typer.Option("--store", metavar="DIR", help="Folder of the store, or a URL such as s3://bucket/store.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")]

PrometheusAuth = Annotated[
    Path | None,
    typer.Option(metavar="FILE", envvar="FOLDMINT_PROMETHEUS_AUTH", help="File with NAME:PASSWORD for Prometheus."),
]
PrometheusCa = Annotated[
    Path | None,
    typer.Option(metavar="FILE", envvar="FOLDMINT_PROMETHEUS_CA", help="Certificates to trust of Prometheus (PEM)."),
]


@contextmanager
def faults() -> Iterator[None]:
    """Turn expected errors into one message on stderr and an exit code."""
    from foldmint_client import FoldmintError
    from foldmint_maintenance.errors import ActivationFailed, MaintenanceError, TrainingStopped
    from foldmint_tokenizer.errors import StoreLocked, TokenizerError

    try:
        yield
    except TrainingStopped as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(STOPPED) from stopped
    except StoreLocked as locked:
        typer.echo(f"error: {locked}", err=True)
        raise typer.Exit(LOCKED) from locked
    except ActivationFailed as failed:
        typer.echo(f"error: {failed}", err=True)
        raise typer.Exit(NOT_ACTIVATED) from failed
    except (MaintenanceError, TokenizerError, FoldmintError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@contextmanager
def changes() -> Iterator[None]:
    """Around what changes a store: SIGTERM ends it too, and the lock is given back; errors as in `faults`."""
    from foldmint_maintenance.errors import TrainingStopped

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (as signal.signal calls it)
        raise TrainingStopped(f"stopped by {signal.Signals(number).name}; the store is whole")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with faults():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


def server_addresses(given: str | None) -> tuple[str, ...]:
    """The addresses of a list with commas."""
    return tuple(each.strip() for each in (given or "").split(",") if each.strip())


def checked(options: "ConnectionOptions", *addresses: str) -> None:
    """Raise ValueError if servers cannot be reached like this: a token in the clear, a file that cannot be read."""
    from foldmint_client.connection import Connection
    from foldmint_client.errors import UnreadableInput

    tls = options.get("tls")
    try:
        if tls is not None:
            tls.credentials()
    except UnreadableInput as error:
        raise ValueError(str(error)) from error
    for address in addresses:
        Connection(address, **options)
