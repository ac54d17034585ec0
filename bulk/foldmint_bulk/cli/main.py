"""The command `foldmint-bulk`."""

import typer

app = typer.Typer(name="foldmint-bulk")


@app.command()
def bulk() -> None:
    """Under construction."""
