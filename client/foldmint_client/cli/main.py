"""The command `foldmint`: tokens of structure files, structures of tokens, and what a server serves.

foldmint tokenize --server HOST:PORT --format jsonl PATH...
foldmint detokenize --server HOST:PORT --format pdb --out FOLDER PATH...
foldmint compare --server HOST:PORT A B
foldmint usage --admin HOST:PORT
foldmint watch --admin HOST:PORT
foldmint info --server HOST:PORT
foldmint health --server HOST:PORT
"""

from typing import TYPE_CHECKING, Annotated

import typer

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


for _command in (tokenize, detokenize, compare, usage, watch):
    app.command(epilog=EPILOGS[_command.__name__], short_help=SHORT[_command.__name__])(_command)


@app.command(epilog=EPILOGS["info"], short_help=SHORT["info"])
@with_credentials
def info(
    server: Server = LOCALHOST,
    as_json: AsJson = False,
    timeout: Timeout = 10.0,
    attempts: Attempts = 5,
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Print what a server serves: model, codebook, vocabulary and limits."""
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


@app.command(epilog=EPILOGS["health"], short_help=SHORT["health"])
@with_credentials
def health(
    server: Server = LOCALHOST,
    service: Annotated[str, typer.Option(help="A service of the server, foldmint.v1.TokenizerService.")] = "",
    as_json: AsJson = False,
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
