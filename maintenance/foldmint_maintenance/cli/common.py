"""What the commands of `foldmint-maintenance` share."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from foldmint_client.connection import ConnectionOptions

LOCKED = 4
NOT_ACTIVATED = 5
STOPPED = 130  # what shells report of a program ended by SIGINT

StoreOption = Annotated[
    str, typer.Option("--store", metavar="DIR", help="Folder of the store, or a URL such as s3://bucket/store.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")]

AsJson = Annotated[
    bool, typer.Option("--json", help="Print it as JSON on standard output; everything else goes to standard error.")
]
JsonFile = Annotated[Path | None, typer.Option("--json-file", metavar="FILE", help="Write it as JSON to a file.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; auto takes a GPU if there is one.")]
OUTPUT = ("--output", "-o", "--out")

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
    """Around what changes a store: signals end it too, and the lock is given back; errors as in `faults`."""
    with faults(), stoppable():
        yield


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a ValueError of a config, whose message names the setting, into a usage error."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def check_device(device: str) -> None:
    """Raise BadParameter for an invalid device, before torch is imported."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise typer.BadParameter(f"{device!r} is not a device: auto, cpu, cuda or cuda:NUMBER", param_hint="'--device'")


def check_prometheus(url: str | None) -> None:
    """Raise BadParameter for an address without a scheme, before anything heavy is imported."""
    if url is not None and not url.startswith(("http://", "https://")):
        problem = f"{url!r} is not an address of a Prometheus: it begins with neither http:// nor https://"
        raise typer.BadParameter(problem, param_hint="'--prometheus'")


def check_outputs(**files: Path | None) -> None:
    """Raise BadParameter, which names the option, for a file that is a folder; - is standard output."""
    for name, path in files.items():
        if path is not None and path.is_dir():
            option = f"'--{name.replace('_', '-')}'"
            raise typer.BadParameter(f"{path} is a folder; expected a file", param_hint=option)


def json_target(as_json: bool, file: Path | None) -> Path | None:
    """Where JSON goes: - for standard output, a file, or None. Raises BadParameter if both are asked for."""
    if as_json and file is not None and not to_stdout(file):
        raise typer.BadParameter("--json prints it, and --json-file writes it to a file: give one of them")
    return Path("-") if as_json else file


def to_stdout(file: Path | None) -> bool:
    """Whether a file stands for standard output, which then has nothing else."""
    return file is not None and str(file) == "-"


def make_parents(*files: Path | None) -> None:
    """Make the folders of files: one that cannot be made is better reported before the work than after it."""
    for file in files:
        if file is not None and not to_stdout(file):
            file.parent.mkdir(parents=True, exist_ok=True)


def write_json(file: Path | None, value: object, *, indent: int | None = 2) -> None:
    """Write a value as JSON to a file, or to standard output for `-`; nothing for None."""
    text = json.dumps(value, indent=indent) + "\n"
    if file is None:
        return
    if to_stdout(file):
        typer.echo(text, nl=False)
    else:
        make_parents(file)
        file.write_text(text, encoding="utf-8")


def say(text: str, json_file: Path | None) -> None:
    """Print a line for people: on standard error where standard output is for JSON."""
    typer.echo(text, err=to_stdout(json_file))


def console_beside(json_file: Path | None) -> "Console":
    """Where tables go: standard error where standard output is for JSON."""
    from rich.console import Console

    return Console(stderr=to_stdout(json_file), highlight=False, markup=False)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGINT raise TrainingStopped, so that locks are given back and reports written."""
    from foldmint_maintenance.errors import TrainingStopped

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (as signal.signal calls it)
        raise TrainingStopped(f"stopped by {signal.Signals(number).name}; the store is whole")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
