"""What the commands of `foldmint` share: how to reach a server, and what they exit with."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from foldmint_client.admin import CodebookAdmin
    from foldmint_client.cli.credentials import Credentials
    from foldmint_client.cli.progress import Reporter
    from foldmint_client.client import Client
    from foldmint_client.connection import ConnectionOptions

INCOMPLETE = 1  # some input has no result
NO_SERVER = 3  # no server answers, or it refuses or fails the whole call
_BROKEN_PIPE = 141  # what shells report of a program ended by SIGPIPE

Server = Annotated[str, typer.Option(metavar="HOST:PORT", envvar="FOLDMINT_SERVER", help="The server.")]
Admin = Annotated[
    str,
    typer.Option(
        "--admin", metavar="HOST:PORT", envvar="FOLDMINT_ADMIN", help="The server's admin listener (--admin-listen)."
    ),
]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="Longest wait for an answer.")]
Attempts = Annotated[int, typer.Option(min=1, max=5, help="Tries in all while no server answers.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")]

Failures = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write what failed there, a JSON object a line: source, kind, message, violations."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

LOCALHOST = "localhost:50051"
LOCAL_ADMIN = "localhost:50052"


def fail(message: str, code: int) -> NoReturn:
    """Say on one line what went wrong, and exit."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def finish(reporter: "Reporter", failed: str, summary: Mapping[str, object] | None, *, quiet: bool) -> None:
    """End a command on many inputs: the summary as JSON if there is one, causes of failures, and the exit code.

    failed: what to say of failures.
    """
    if summary is not None:
        import json

        typer.echo(json.dumps(summary))
    if reporter.failed:
        if not quiet:
            typer.echo("\n".join([failed, *reporter.summary()]), err=True)
        raise typer.Exit(INCOMPLETE)


@contextmanager
def connected(
    server: str,
    timeout: float,
    attempts: int,
    credentials: "Credentials",
) -> "Iterator[Client]":
    """A client, and messages and exit codes instead of its errors."""
    from foldmint_client.client import Client

    with _told(server, timeout, attempts, credentials) as options, Client(server, **options) as client:
        yield client


@contextmanager
def connected_admin(
    admin: str,
    timeout: float,
    attempts: int,
    credentials: "Credentials",
) -> "Iterator[CodebookAdmin]":
    """A client of the admin listener, and messages and exit codes instead of its errors."""
    from foldmint_client.admin import CodebookAdmin

    with (
        _told(admin, timeout, attempts, credentials) as options,
        CodebookAdmin(admin, **options) as client,
    ):
        yield client


@contextmanager
def _told(
    server: str,
    timeout: float,
    attempts: int,
    credentials: "Credentials",
) -> "Iterator[ConnectionOptions]":
    """The options of a connection, and messages and exit codes instead of what goes wrong with it."""
    from foldmint_client.connection import Connection, ConnectionOptions, Retry
    from foldmint_client.errors import (
        DeadlineExceeded,
        FoldmintError,
        InvalidOptions,
        MissingExtra,
        Unavailable,
        UnreadableInput,
    )

    try:
        options = ConnectionOptions(timeout=timeout, retry=Retry(attempts=attempts), **credentials.read())
        Connection(server, **options)
        tls = options.get("tls")
        if tls is not None:
            tls.credentials()  # wrong files are wrong usage
    except (ValueError, UnreadableInput) as error:
        raise typer.BadParameter(str(error)) from error
    try:
        yield options
    except (InvalidOptions, MissingExtra) as error:
        raise typer.BadParameter(str(error)) from error
    except Unavailable as error:
        fail(f"no server answers at {server}: {unavailable(error)}", NO_SERVER)
    except DeadlineExceeded as error:
        fail(f"{server} does not answer: {error}", NO_SERVER)
    except FoldmintError as error:
        fail(f"{server}: {error}", NO_SERVER)


def unavailable(error: Exception) -> str:
    """Why no server answers, without gRPC's preamble."""
    return str(error).removeprefix("failed to connect to all addresses; ")


@contextmanager
def output_errors(output: Path | None) -> Iterator[None]:
    """Messages and exit codes instead of errors of writing, to a file or standard output."""
    try:
        yield
    except BrokenPipeError as error:
        # Whoever read has enough. The interpreter must find nothing to flush when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(_BROKEN_PIPE) from error
    except OSError as error:
        fail(f"cannot write {output or 'standard output'}: {error.strerror or error}", INCOMPLETE)


def check_output_file(output: Path | None, option: str, *, overwrite: bool = True) -> None:
    """Raise BadParameter if there can be no such file; None is standard output.

    overwrite: whether a file may be there already; a device or pipe always may.
    """
    if output is None:
        return
    if output.is_dir() or not output.resolve().parent.is_dir():
        raise typer.BadParameter(f"{output}: not a file in a folder that exists", param_hint=option)
    if not overwrite and output.is_file():
        raise typer.BadParameter(f"{output} exists; --overwrite writes over it", param_hint=option)
