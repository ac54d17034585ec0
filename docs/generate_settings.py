"""Writes docs/settings.md, the reference of the server's settings, from the settings themselves.

.venv/bin/python docs/generate_settings.py
"""

import typing
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from foldmint_server.setting_groups import GROUPS
from foldmint_server.settings import Settings

PAGE = Path(__file__).with_name("settings.md")

_HEAD = """\
# Server settings

<!-- Written by docs/generate_settings.py from foldmint_server.setting_groups; change it there. -->

Each setting is an option of `foldmint-server`, an environment variable, and a key of the TOML file given by `--config
FILE`: `--max-delay`, `FOLDMINT_MAX_DELAY`, `max_delay`. Options take precedence over variables, and variables over the
file. Sizes are in residues or bytes, times in seconds. On invalid values or unknown keys, the server names the option,
variable or key with the reason, and exits with 2.

`foldmint-server --check-config` checks all that a start needs, and serves nothing: settings, files of tokens, passwords
and TLS, free ports, devices, and the store, which it reads. It prints problems by option and exits with 1, or prints
the settings in use as TOML, without user names and passwords in URLs.

```toml
# foldmint.toml, for foldmint-server --config foldmint.toml
listen = "0.0.0.0:50051"
max_queued_residues = 200000
```

"""

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def page() -> str:
    """The whole page, in Markdown. Raises ValueError for a setting without a description."""
    return _HEAD + "\n\n".join(_section(group) for group in GROUPS) + "\n"


def _section(group: type[BaseModel]) -> str:
    lines = [_line(name, field) for name, field in group.model_fields.items()]
    return "\n".join([f"## {(group.__doc__ or '').rstrip('.')}", "", *lines])


def _line(name: str, field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"the setting {name} has no description")
    option = name.replace("_", "-")
    names = f"`--{option}`" + (f", `--no-{option}`" if field.annotation is bool else "")
    names += f", `{Settings.model_config['env_prefix']}{name.upper()}`"
    default = "" if field.default in (None, "") else f"; default: `{_default(field.default)}`"
    return f"- {names}: {field.description.replace('<', '&lt;')} [{_takes(field)}{default}]"


def _takes(field: FieldInfo) -> str:
    """The values that fit: `integer ≥ 1`, or each of a choice."""
    if typing.get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(field.annotation))
    kinds: dict[Any, str] = {int: "integer", float: "number", bool: "`true`, `false`"}
    bounds = [
        f"{sign} {_default(getattr(rule, key))}"
        for rule in field.metadata
        for key, sign in _BOUNDS.items()
        if hasattr(rule, key)
    ]
    patterns = [f"`{rule.pattern}`" for rule in field.metadata if getattr(rule, "pattern", None)]
    return " ".join([kinds.get(field.annotation, "text"), ", ".join(bounds + patterns)]).strip()


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # The groups of three make sizes legible; the command line, the environment and TOML take them.
    return f"{value:_}" if isinstance(value, int) and value >= 10_000 else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
