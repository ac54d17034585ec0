"""The command `foldmint-server`.

foldmint-server --listen 0.0.0.0:50051 --metrics-listen 0.0.0.0:9464
foldmint-server tokens create alice --scope tokenize --file tokens.toml
"""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from foldmint_server.cli.tokens import add_to
from foldmint_server.settings import Settings, read_settings

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _options() -> inspect.Signature:
    """A command-line option for each setting, described as the setting is; what is not given stays None."""
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                _plain(setting.annotation) | None,
                typer.Option(help=f"{setting.description} [{setting.default if setting.default is not None else '-'}]"),
            ],
        )
        for name, setting in Settings.model_fields.items()
    ]
    config = inspect.Parameter(
        "config",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[Path | None, typer.Option(help="TOML file with settings, by the names below.")],
    )
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    return inspect.Signature([context, config, *parameters])


def _plain(annotation: Any) -> Any:  # noqa: ANN401 (a type, of any kind)
    """The type that the command line reads; pydantic checks what it means."""
    if annotation in (int, float, bool):
        return annotation
    return str


def run(context: typer.Context, **given: Any) -> None:  # noqa: ANN401
    """Serve a model over gRPC, with metrics for Prometheus, until SIGTERM or SIGINT.

    Each option may also be set as FOLDMINT_<NAME> in the environment or in a TOML file (--config).
    """
    if context.invoked_subcommand is not None:
        return
    config = given.pop("config")
    try:
        settings = read_settings({name: value for name, value in given.items() if value is not None}, config)
    except (ValueError, OSError) as error:
        typer.echo(f"foldmint-server: {error}", err=True)
        raise typer.Exit(2) from error
    # Loaded here: torch would make --help slow.
    from foldmint_server.log_config import quiet_grpc

    quiet_grpc()
    from foldmint_server.serve import serve

    raise typer.Exit(serve(settings))


run.__signature__ = _options()  # type: ignore[attr-defined]
app.callback(invoke_without_command=True)(run)
add_to(app)
