"""The commands `foldmint info` and `foldmint health`: what a server serves, and whether it does.

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
from foldmint_client.cli.credentials import NO_CREDENTIALS, Credentials, with_credentials

if TYPE_CHECKING:
    from foldmint_client.models.responses import ModelInfo


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
