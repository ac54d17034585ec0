"""The options of a command for TLS and its bearer token."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from foldmint_client.connection import ConnectionOptions

SECURITY = "TLS and token"  # a section of the help

_File = Path | None


class Credentials(NamedTuple):
    """Values of the options for TLS and token."""

    tls: Annotated[
        bool, typer.Option("--tls", help="Use TLS; implied by the other TLS options.", rich_help_panel=SECURITY)
    ] = False
    tls_ca: Annotated[
        _File,
        typer.Option(
            envvar="FOLDMINT_TLS_CA",
            metavar="FILE",
            help="Certificates to trust (PEM), instead of the public ones.",
            rich_help_panel=SECURITY,
        ),
    ] = None
    tls_certificate: Annotated[
        _File,
        typer.Option(
            envvar="FOLDMINT_TLS_CERTIFICATE",
            metavar="FILE",
            help="Client certificate (PEM), for mutual TLS.",
            rich_help_panel=SECURITY,
        ),
    ] = None
    tls_key: Annotated[
        _File,
        typer.Option(
            envvar="FOLDMINT_TLS_KEY",
            metavar="FILE",
            help="Key of the client certificate (PEM).",
            rich_help_panel=SECURITY,
        ),
    ] = None
    token_file: Annotated[
        _File,
        typer.Option(
            envvar="FOLDMINT_TOKEN_FILE",
            metavar="FILE",
            help="File with a bearer token; needs TLS, or localhost. By default, the value of FOLDMINT_TOKEN.",
            rich_help_panel=SECURITY,
        ),
    ] = None

    def read(self) -> "ConnectionOptions":
        """Options of a connection. Raises BadParameter if a file cannot be read, InvalidOptions for half a pair."""
        from foldmint_client.connection import Tls

        files = (self.tls_ca, self.tls_certificate, self.tls_key)
        tls = Tls(*files) if self.tls or any(files) else None
        for name in ("tls_ca", "tls_certificate", "tls_key", "token_file"):
            path = getattr(self, name)
            if path is not None:
                _check_readable(path, f"--{name.replace('_', '-')}")
        token = self.token_file.read_text(encoding="utf-8").strip() if self.token_file else None
        return {"tls": tls, "token": token}


def _check_readable(path: Path, option: str) -> None:
    """Raise BadParameter if a file is not there, cannot be read, or is not text."""
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise typer.BadParameter(f"{path}: {reason}", param_hint=option) from error


NO_CREDENTIALS = Credentials()


def with_credentials(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of `Credentials` instead of its parameter `credentials`."""
    signature = inspect.signature(command)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name == "credentials":
            parameters += [
                parameter.replace(name=name, annotation=annotation, default=Credentials._field_defaults[name])
                for name, annotation in Credentials.__annotations__.items()
            ]
        else:
            parameters.append(parameter)

    @wraps(command)
    def wrapped(**given: object) -> None:
        credentials = Credentials(*(given.pop(name) for name in Credentials._fields))  # type: ignore[arg-type]
        command(credentials=credentials, **given)

    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapped
