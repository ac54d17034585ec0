"""What is wrong with settings, in words that name the option, variable or key as it was typed."""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from foldmint.command_line import as_typed
from foldmint_server.cli.options import option_of
from foldmint_server.settings import Settings

_TYPES = {
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "int_type": "an integer",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
}


def setting_problems(
    error: ValidationError, given: Collection[str], environment: Collection[str], file: Path | None
) -> list[str]:
    """A line for each problem. given: settings of the command line. environment: names of variables."""
    options = {name: option_of(name) for name in Settings.model_fields}
    lines = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            similar = get_close_matches(name, options, n=1, cutoff=0.7)
            meant = f" (did you mean {similar[0]}?)" if similar else ""
            lines.append(f"{name} in {file} is not a setting{meant}")
            continue
        text = as_typed(_message(problem), options)
        lines.append(f"{_source(name, given, environment, file)}: {text}" if name else text)
    return lines


def named_as_typed(
    problem: str, given: Collection[str], environment: Collection[str], file: Path | None, settings: Settings
) -> str:
    """A problem that begins with options, `--a, --b: …`, with each named by where its setting comes from."""
    options = {option_of(name): name for name in settings.model_fields_set}
    named, colon, text = problem.partition(": ")
    sources = [
        _source(options[each], given, environment, file) if each in options else each for each in named.split(", ")
    ]
    return f"{', '.join(sources)}{colon}{text}"


def _source(name: str, given: Collection[str], environment: Collection[str], file: Path | None) -> str:
    """Where a setting's value comes from: its option, variable, or key in the file. given: of the command line."""
    variable = f"{Settings.model_config['env_prefix']}{name}".upper()
    if name not in given and variable in {each.upper() for each in environment}:
        return variable
    return option_of(name) if name in given or file is None else f"{name} in {file}"


def _message(problem: Mapping[str, Any]) -> str:
    kind, context, value = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "value_error":
        return str(context["error"])
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}, not {value!r}"
    if kind == "string_pattern_mismatch":
        return f"{value!r} does not match {context['pattern']}"
    # Standard wording of the others, such as `Input should be greater than or equal to 1`.
    return f"{re.sub('^(Input|String|Value) should', 'must', problem['msg'])}, not {value!r}"
