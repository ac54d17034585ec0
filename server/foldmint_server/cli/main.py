"""The command `foldmint-server`.

foldmint-server --listen 0.0.0.0:50051 --metrics-listen 0.0.0.0:9464
foldmint-server --check-config --config foldmint.toml
foldmint-server tokens create alice --scope tokenize --file tokens.toml
"""

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, ClassVar

import typer
from pydantic import ValidationError

from foldmint.command_line import CONTEXT_SETTINGS, LazyGroup, command_of, epilog, print_version
from foldmint.environment import unknown_variables_warning
from foldmint_server.cli.options import setting_parameters
from foldmint_server.cli.setting_errors import named_as_typed, setting_problems
from foldmint_server.garbage_collection import without_collection
from foldmint_server.settings import Settings, read_settings

_USAGE, _CANNOT_START = 2, 1

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=CONTEXT_SETTINGS
)
_EPILOG = epilog(
    {
        "The embedded model, for this machine alone": "foldmint-server",
        "A model of your own, for others too": (
            "foldmint-server --model store/ --listen 0.0.0.0:50051 --metrics-listen 0.0.0.0:9464"
        ),
        "Settings of a file, checked before a restart": "foldmint-server --check-config --config foldmint.toml",
        "Bearer tokens": "foldmint-server tokens create alice --scope tokenize",
    },
    {
        0: "stopped by SIGTERM or SIGINT, or the configuration can be used",
        _CANNOT_START: "it cannot start, with the reason",
        _USAGE: "a wrong option or setting",
        3: "the last device was lost",
    },
)


class _Commands(LazyGroup):
    """The commands below `foldmint-server`: they change files, and need neither settings nor a server."""

    summaries: ClassVar[Mapping[str, str]] = {
        "password": "Create a password for /metrics and the dashboard, and print it.",
        "tokens": "Create, list and revoke bearer tokens.",
    }

    @staticmethod
    def create(name: str) -> Any:  # noqa: ANN401 (typer's own class)
        """Import a command."""
        from foldmint_server.cli.tokens import PASSWORD_EPILOG, password, tokens

        if name == "password":
            return command_of(password, name, epilog=PASSWORD_EPILOG)
        return typer.main.get_command(tokens)


def _signature() -> inspect.Signature:
    """The context, the command's own options, and one for each setting."""
    own: dict[str, Any] = {
        "config": Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file with settings, by their names.")],
        "check_config": Annotated[
            bool,
            typer.Option("--check-config", help="Check all that a start needs, print the settings, and do not serve."),
        ],
        "version": Annotated[
            bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
        ],
    }
    defaults = {"config": None, "check_config": False, "version": False}
    keyword = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    options = [inspect.Parameter(name, keyword, default=defaults[name], annotation=own[name]) for name in own]
    return inspect.Signature([context, *options, *setting_parameters()])


def run(context: typer.Context, **given: Any) -> None:  # noqa: ANN401
    """Serve a model over gRPC, with metrics for Prometheus, until SIGTERM or SIGINT.

    Each option may also be set as FOLDMINT_<NAME> in the environment or in a TOML file (--config).
    """
    check, config = given.pop("check_config"), given.pop("config")
    del given["version"]
    # A server warns in its log.
    if (context.invoked_subcommand is not None or check) and (warning := unknown_variables_warning(os.environ)):
        typer.echo(f"foldmint-server: warning: {warning}", err=True)
    if context.invoked_subcommand is not None:
        return
    given = {name: value for name, value in given.items() if value is not None}
    settings = _settings(given, config)

    def typed(problems: list[str]) -> list[str]:
        return [named_as_typed(each, given, os.environ, config, settings) for each in problems]

    from foldmint_server.log_config import configure_logs, quiet_grpc

    quiet_grpc()
    # Loaded here, after that: checks load gRPC.
    from foldmint_server.cli.checks import all_problems, early_problems

    if check:
        configure_logs("error", settings.log_format)
        _exit_with(_CANNOT_START, typed(all_problems(settings)))
        from foldmint_server.cli.configuration import as_toml

        typer.echo(as_toml(settings), nl=False)
        raise typer.Exit(0)
    _exit_with(_CANNOT_START, typed(early_problems(settings)))
    # Loaded here: torch would make --help slow.
    with without_collection():
        from foldmint_server.serve import serve

    raise typer.Exit(serve(settings))


def _settings(given: dict[str, object], config: Path | None) -> Settings:
    try:
        return read_settings(given, config)
    except ValidationError as error:
        problems = setting_problems(error, given, os.environ, config)
    except TOMLDecodeError as error:
        problems = [f"--config: {config} is not TOML: {error}"]
    except (OSError, ValueError) as error:
        problems = [f"--config: {error}"]
    _exit_with(_USAGE, problems)
    raise AssertionError("there is a problem")


def _exit_with(code: int, problems: list[str]) -> None:
    """Print problems, a line each, and exit, if there are any."""
    for problem in problems:
        typer.echo(f"foldmint-server: {problem}", err=True)
    if problems:
        raise typer.Exit(code)


run.__signature__ = _signature()  # type: ignore[attr-defined]
app.callback(invoke_without_command=True, cls=_Commands, epilog=_EPILOG)(run)
