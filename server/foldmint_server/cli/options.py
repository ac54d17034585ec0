"""The options of `foldmint-server`: one for each setting, in the settings' groups, with their choices and bounds."""

import inspect
import typing
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo

from foldmint_server.setting_groups import GROUPS


def option_of(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"


def setting_parameters() -> list[inspect.Parameter]:
    """A parameter for each setting, described as the setting is; what is not given is None."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[_type(setting) | None, _option(setting, (group.__doc__ or "").rstrip("."))],
        )
        for group in GROUPS
        for name, setting in group.model_fields.items()
    ]


def _option(setting: FieldInfo, group: str) -> Any:  # noqa: ANN401 (typer's own class)
    default = "-" if setting.default in (None, "") else setting.default
    bounds = {
        own: getattr(rule, key)
        for rule in setting.metadata
        for own, key in (("min", "ge"), ("max", "le"))
        if hasattr(rule, key)
    }
    return typer.Option(help=f"{setting.description} [{default}]", rich_help_panel=group, **bounds)


def _type(setting: FieldInfo) -> Any:  # noqa: ANN401 (a type, of any kind)
    """The type that the command line reads; pydantic checks the rest."""
    annotation = setting.annotation
    if annotation in (int, float, bool) or typing.get_origin(annotation) is Literal:
        return annotation
    return str
