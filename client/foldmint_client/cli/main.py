"""The command `foldmint`: tokens of structure files, structures of tokens, and what a server serves.

foldmint tokenize --server HOST:PORT --format jsonl PATH...
foldmint detokenize --server HOST:PORT --format pdb --output FOLDER PATH...
foldmint compare --server HOST:PORT A B
foldmint usage --admin HOST:PORT
foldmint watch --admin HOST:PORT
foldmint info --server HOST:PORT
foldmint health --server HOST:PORT
"""

from importlib import import_module
from typing import Annotated, Any

import typer

from foldmint.command_line import CONTEXT_SETTINGS, LazyGroup, command_of, print_version
from foldmint_client.cli.help_text import EPILOG, EPILOGS, SHORT

_MODULES = {"watch": "usage", "info": "server_status", "health": "server_status"}
"""Where commands are that are not in the module of their name."""


class _Commands(LazyGroup):
    """The commands, each a function of its name."""

    summaries = SHORT

    @staticmethod
    def create(name: str) -> Any:  # noqa: ANN401 (typer's own class)
        """Import a command."""
        module = import_module(f"foldmint_client.cli.{_MODULES.get(name, name)}")
        return command_of(getattr(module, name), name, epilog=EPILOGS[name])


app = typer.Typer(
    name="foldmint",
    help="Protein structures to structure tokens and back, by a Foldmint server.",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, as of a manual's page, takes half the time of rich's
    epilog=EPILOG,
    context_settings=CONTEXT_SETTINGS,
)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Protein structures to structure tokens and back, by a Foldmint server."""
