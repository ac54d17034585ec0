"""What the commands of `foldmint` share: connection options, and errors as messages and exit codes."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, NoReturn

import typer

if TYPE_CHECKING:
    from foldmint_client.admin import CodebookAdmin
    from foldmint_client.cli.credentials import Credentials
    from foldmint_client.cli.progress import Reporter
    from foldmint_client.client import Client
    from foldmint_client.connection import ConnectionOptions, Tls
    from foldmint_client.errors import InvalidOptions

INCOMPLETE = 1  # some input has no result
USAGE = 2
NO_SERVER = 3  # the server cannot be reached, or rejects or fails the whole call
_UNIMPLEMENTED = 12  # gRPC's status
_BROKEN_PIPE = 141  # what shells report of a program ended by SIGPIPE

# Sections of the help.
INPUT, TOKENS, OUTPUT, CONNECTION = "Input", "Tokens", "Output", "Connection"

Server = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        envvar="FOLDMINT_SERVER",
        help="Address of the server (its --listen); several are separated by commas.",
        rich_help_panel=CONNECTION,
    ),
]
Admin = Annotated[
    str,
    typer.Option(
        "--admin",
        metavar="HOST:PORT",
        envvar="FOLDMINT_ADMIN",
        help="Address of the server's admin listener (its --admin-listen).",
        rich_help_panel=CONNECTION,
    ),
]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="Longest wait for an answer.", rich_help_panel=CONNECTION)
]
Attempts = Annotated[
    int,
    typer.Option(min=1, max=5, help="Attempts in all while the server cannot be reached.", rich_help_panel=CONNECTION),
]
Balance = Annotated[
    Literal["round_robin", "pick_first"],
    typer.Option(
        help="How several servers, of a list or of a name with several addresses, are used: all of them, or one until "
        "it fails.",
        rich_help_panel=CONNECTION,
    ),
]
InFlight = Annotated[
    int, typer.Option(min=1, help="Structures in flight at once, at most.", rich_help_panel=CONNECTION)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.", rich_help_panel=OUTPUT)]
Failures = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write failures to this file, one JSON object per line: source, kind, message, violations.",
        rich_help_panel=OUTPUT,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.", rich_help_panel=OUTPUT)]

STDIN, STDOUT = "-", Path("-")
LOCALHOST = "localhost:50051"
LOCAL_ADMIN = "localhost:50052"


def fail(message: str, code: int) -> NoReturn:
    """Print an error on one line, and exit."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def finish(reporter: "Reporter", failed: str, summary: Mapping[str, object] | None, *, quiet: bool) -> None:
    """End a command on many inputs: print the summary as JSON, if there is one, and causes of failures; exit.

    failed: the headline of the failures.
    """
    if summary is not None:
        import json

        typer.echo(json.dumps(summary))
    if reporter.failed:
        if not quiet:
            typer.echo("\n".join([failed, *reporter.summary()]), err=True)
        raise typer.Exit(INCOMPLETE)


class Endpoint(NamedTuple):
    """An option that names an address. listen: the server's option that it should agree with."""

    option: str
    listen: str


_SERVER = Endpoint("--server", "--listen")
_ADMIN = Endpoint("--admin", "--admin-listen")


@contextmanager
def connected(
    server: str,
    timeout: float,
    attempts: int,
    credentials: "Credentials",
    balance: Literal["round_robin", "pick_first"] = "round_robin",
) -> "Iterator[Client]":
    """A client; its errors become messages and exit codes."""
    from foldmint_client.client import Client

    with (
        _errors_reported(_SERVER, server, timeout, attempts, credentials) as options,
        Client(server, **(options | {"balance": balance})) as client,
    ):
        yield client


@contextmanager
def connected_admin(
    admin: str,
    timeout: float,
    attempts: int,
    credentials: "Credentials",
) -> "Iterator[CodebookAdmin]":
    """A client of the admin listener; its errors become messages and exit codes."""
    from foldmint_client.admin import CodebookAdmin

    with (
        _errors_reported(_ADMIN, admin, timeout, attempts, credentials) as options,
        CodebookAdmin(admin, **options) as client,
    ):
        yield client


@contextmanager
def _errors_reported(
    endpoint: Endpoint,
    address: str,
    timeout: float,
    attempts: int,
    credentials: "Credentials",
) -> "Iterator[ConnectionOptions]":
    """The options of a connection; errors of it become messages and exit codes."""
    from foldmint_client.connection import Connection, ConnectionOptions, Retry
    from foldmint_client.errors import (
        DeadlineExceeded,
        FoldmintError,
        InvalidOptions,
        MissingExtra,
        ServerError,
        Unavailable,
        UnreadableInput,
    )

    try:
        options = ConnectionOptions(timeout=timeout, retry=Retry(attempts=attempts), **credentials.read())
        Connection(address, **options)
        tls = options.get("tls")
        if tls is not None:
            tls.credentials()  # a file that cannot be read is wrong usage
    except InvalidOptions as error:
        raise _bad_parameter(error, endpoint) from error
    except (ValueError, UnreadableInput) as error:
        raise typer.BadParameter(str(error)) from error
    try:
        yield options
    except InvalidOptions as error:
        raise _bad_parameter(error, endpoint) from error
    except MissingExtra as error:
        fail(str(error), USAGE)
    except (Unavailable, DeadlineExceeded) as error:
        fail(f"cannot connect to {address}: {_diagnosis(address, tls, endpoint, error)}", NO_SERVER)
    except ServerError as error:
        if error.code == _UNIMPLEMENTED:
            fail(f"{address} has no such service; {endpoint.option} is the server's {endpoint.listen}", NO_SERVER)
        fail(f"{address}: {error}", NO_SERVER)
    except FoldmintError as error:
        fail(f"{address}: {error}", NO_SERVER)


def _diagnosis(address: str, tls: "Tls | None", endpoint: Endpoint, error: Exception) -> str:
    """Why no server of an address can be reached; of each, if there are several."""
    from foldmint_client.addresses import split
    from foldmint_client.cli.diagnosis import diagnose

    servers = [server.target for server in split(address)]
    reasons = [diagnose(server, tls, endpoint.listen) for server in servers]
    if len(servers) == 1 or not all(reasons):
        return next(filter(None, reasons), None) or unavailable(error)
    return "; ".join(f"{server}: {reason}" for server, reason in zip(servers, reasons, strict=True))


def _bad_parameter(error: "InvalidOptions", endpoint: Endpoint) -> typer.BadParameter:
    """The same error, which names the option as it is typed."""
    typed = {"target": endpoint.option, "chains": "--chain", "token": "--token-file", "version": "--codebook-version"}
    if error.option is None:
        return typer.BadParameter(str(error))
    return typer.BadParameter(str(error), param_hint=typed.get(error.option, f"--{error.option.replace('_', '-')}"))


def unavailable(error: Exception) -> str:
    """Why the server cannot be reached, without gRPC's preamble."""
    text = str(error).removeprefix("failed to connect to all addresses; ")
    return text.removeprefix("connections to all backends failing; ")


@contextmanager
def output_errors(output: Path | None) -> Iterator[None]:
    """Turn errors of writing, to a file or standard output, into messages and exit codes."""
    try:
        yield
    except BrokenPipeError as error:
        # The reader has closed the pipe. The interpreter must find nothing to flush when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(_BROKEN_PIPE) from error
    except OSError as error:
        fail(f"cannot write {output or 'standard output'}: {error.strerror or error}", INCOMPLETE)


def check_output_file(output: Path | None, option: str, *, overwrite: bool = True) -> None:
    """Raise BadParameter if the file cannot be created; None is standard output.

    overwrite: whether the file may exist already; a device or pipe always may.
    """
    if output is None:
        return
    if output == STDOUT:
        raise typer.BadParameter("standard output has another use here; name a file", param_hint=option)
    if output.is_dir() or not output.resolve().parent.is_dir():
        raise typer.BadParameter(f"{output}: not a file in a folder that exists", param_hint=option)
    if not overwrite and output.is_file():
        raise typer.BadParameter(f"{output} exists; --overwrite replaces it", param_hint=option)
