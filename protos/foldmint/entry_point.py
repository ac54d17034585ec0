"""How the commands start: with a hint, instead of a traceback, where a package of an extra is not installed."""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import NoReturn

from foldmint.environment import unknown_variables_warning

MISSING_EXTRA = 1
_OWN = ("foldmint", "foldmint_bulk", "foldmint_client", "foldmint_maintenance", "foldmint_server", "foldmint_tokenizer")


def run(
    command: str, module: str, *, extra: str | None, others: Mapping[str, str] | None = None, warn: bool = True
) -> NoReturn:
    """Run a command's Typer application, `app` of a module, and exit.

    extra: the extra of Foldmint that the command needs. others: extras of single packages, by import name. warn:
    whether to warn on standard error about unknown environment variables.
    """
    # Read when gRPC is loaded: its core writes lines of its own beside the errors that commands report.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if warn and (warning := unknown_variables_warning(os.environ)) is not None:
        sys.stderr.write(f"{command}: warning: {warning}\n")
    try:
        import_module(module).app(prog_name=command)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _OWN:
            raise
        needed = (others or {}).get(package, extra)
        distribution = "foldmint" if needed is None else f"foldmint[{needed}]"
        sys.stderr.write(f"{command}: {package} is not installed: pip install '{distribution}'\n")
        sys.exit(MISSING_EXTRA)
    sys.exit(0)
