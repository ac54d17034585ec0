"""The command `foldmint`: tokens of structure files, structures of tokens, and what a server serves.

foldmint tokenize --server HOST:PORT --format jsonl PATH...
foldmint detokenize --server HOST:PORT --format pdb --output FOLDER PATH...
foldmint compare --server HOST:PORT A B
foldmint usage --admin HOST:PORT
foldmint watch --admin HOST:PORT
foldmint info --server HOST:PORT
foldmint health --server HOST:PORT
"""

from typing import TYPE_CHECKING, Annotated

import typer

from foldmint.command_line import CONTEXT_SETTINGS, GroupedCommand
from foldmint_client.cli.common import (
    LOCALHOST,
    AsJson,
    Attempts,
    Server,
    Timeout,
    connected,
)
from foldmint_client.cli.compare import compare
from foldmint_client.cli.credentials import NO_CREDENTIALS, Credentials, with_credentials
from foldmint_client.cli.detokenize import detokenize
from foldmint_client.cli.help_text import EPILOG, EPILOGS, SHORT
from foldmint_client.cli.tokenize import tokenize
from foldmint_client.cli.usage import usage, watch

if TYPE_CHECKING:
    from foldmint_client.models.responses import ModelInfo

app = typer.Typer(
    name="foldmint",
    help="Protein structures to structure tokens and back, by a Foldmint server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, as of a manual's page, takes half the time of rich's
    epilog=EPILOG,
    context_settings=CONTEXT_SETTINGS,
)


def _version(wanted: bool) -> None:
    if wanted:
        from foldmint_client.connection import installed_version

        typer.echo(f"foldmint {installed_version()}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Protein structures to structure tokens and back, by a Foldmint server."""


@with_credentials
def info(
    as_json: AsJson = False,
    server: Server = LOCALHOST,
    timeout: Timeout = 10.0,
    attempts: Attempts = 5,
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Print the server's model, codebook, vocabulary and limits."""
    with connected(server, timeout, attempts, credentials) as client:
        model = client.model()
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps(asdict(model), indent=2))
    else:
        _print_table(model)


def _print_table(model: "ModelInfo") -> None:
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in asdict(model).items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for part, number in parts:
            table.add_row(f"{name} {part}".strip().replace("_", " "), "none" if number is None else str(number))
    Console(highlight=False, markup=False).print(table)


@with_credentials
def health(
    service: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="A gRPC service, such as foldmint.v1.TokenizerService; the server by default."
        ),
    ] = "",
    as_json: AsJson = False,
    server: Server = LOCALHOST,
    timeout: Timeout = 5.0,
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Print the server's health, and exit with 0 only if it is SERVING."""
    from foldmint_client.models.responses import Health

    with connected(server, timeout, 1, credentials) as client:
        status = client.health(service)
    if as_json:
        import json

        typer.echo(json.dumps({"service": service, "status": status.value}))
    else:
        typer.echo(status.value)
    if status is not Health.SERVING:
        raise typer.Exit(1)


for _command in (tokenize, detokenize, compare, usage, watch, info, health):
    app.command(cls=GroupedCommand, epilog=EPILOGS[_command.__name__], short_help=SHORT[_command.__name__])(_command)
