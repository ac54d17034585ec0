"""The effective configuration as a TOML file of settings, without secrets."""

import json
import re

from foldmint_server.setting_groups import GROUPS
from foldmint_server.settings import Settings

_USER = re.compile(r"(?<=//)[^/@\s]+(?=@)")


def as_toml(settings: Settings) -> str:
    """All settings by group, as `--config` reads them. Names and passwords in URLs are left out; settings that are not
    set are comments.
    """
    sections = []
    for group in GROUPS:
        lines = [_line(name, getattr(settings, name)) for name in group.model_fields]
        sections.append("\n".join([f"# {group.__doc__}", *lines]))
    return "\n\n".join(sections) + "\n"


def _line(name: str, value: object) -> str:
    if value is None:
        return f"# {name}: not set"
    if isinstance(value, bool):
        return f"{name} = {str(value).lower()}"
    if isinstance(value, str):
        return f"{name} = {json.dumps(_USER.sub('…', value), ensure_ascii=False)}"
    return f"{name} = {value}"
