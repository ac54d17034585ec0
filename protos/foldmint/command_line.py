"""Conventions that the commands share: `-h`, options in groups, examples and exit codes, and errors' wording."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar

import typer

from foldmint.version import installed_version

# typer's types use it.
_PYDANTIC = {
    "Value error, ": "",
    "a valid integer, unable to parse string as an integer": "an integer",
    "a valid number, unable to parse string as a number": "a number",
    "a valid boolean, unable to interpret input": "true or false",
    "Input should be": "must be",
}

# Names of values that an option does not name itself; typer writes their type.
_METAVARS = {"path": "PATH", "int": "N", "int range": "N", "float": "X", "float range": "X", "str": "TEXT"}
_TYPE = re.compile(rf"<({'|'.join(_METAVARS)})>(?=(\.\.\.)?$)")
_LIST = re.compile(r"<list\[(.*)\]>$")  # of choices, of which several may be given

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


class GroupedCommand(typer.core.TyperCommand):
    """A command whose plain help has a section for each `rich_help_panel` of its options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 (their classes are private)
        """Write a section for arguments, one for each group in order of appearance, and one for other options."""
        _write_groups(self, ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse what was typed."""
        with plain_errors():
            return super().parse_args(ctx, args)


class GroupedGroup(typer.core.TyperGroup):
    """The same for a command with commands below it, which stand last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write the sections of options, then the commands."""
        _write_groups(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse what was typed."""
        with plain_errors():
            return super().parse_args(ctx, args)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Put what pydantic says of an option's value plainly."""
    try:
        yield
    except typer.BadParameter as error:
        for words, plain in _PYDANTIC.items():
            error.message = error.message.replace(words, plain)
        raise


class LazyGroup(GroupedGroup):
    """A group of commands that are created when they are used.

    Its help lists them without creating them, and so without importing what they import. Subclasses set summaries: of
    each command, the line that stands in the group's help.
    """

    summaries: ClassVar[Mapping[str, str]] = {}

    def __init__(self, **given: Any) -> None:  # noqa: ANN401
        super().__init__(**given)
        self.commands: Any = _CreatedCommands(self.summaries, self.create)

    @staticmethod
    def create(name: str) -> Any:  # noqa: ANN401
        """The command of this name, one of `summaries`. Subclasses define it."""
        raise NotImplementedError(name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))


class _CreatedCommands(Mapping[str, Any]):
    """Commands by name, each created when it is asked for."""

    def __init__(self, names: Iterable[str], create: Callable[[str], Any]) -> None:
        self._names = list(names)
        self._create = cache(create)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        if name not in self._names:
            raise KeyError(name)
        return self._create(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def command_of(function: Callable[..., Any], name: str, *, epilog: str) -> Any:  # noqa: ANN401
    """The command that runs a function, whose parameters are its options and arguments."""
    own = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    own.command(name, cls=GroupedCommand, epilog=epilog)(function)
    return typer.main.get_command(own)


def print_version(wanted: bool) -> None:
    """The callback of the option `--version`."""
    if wanted:
        typer.echo(f"foldmint {installed_version()}")
        raise typer.Exit


def _write_groups(command: Any, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
    for title, parameters in option_groups(command.get_params(ctx)).items():
        records = [record for each in parameters if (record := help_record(each, ctx)) is not None]
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def help_record(parameter: Any, ctx: Any) -> tuple[str, str] | None:  # noqa: ANN401 (their classes are private)
    """An argument, or an option with the name of its value, and its text, for help; None if it is hidden."""
    record = parameter.get_help_record(ctx)
    if record is None:
        return None
    name, text = record
    if parameter.param_type_name == "argument":
        return name.partition(" <")[0], text
    name = _LIST.sub(r"<\1>", name)
    return _TYPE.sub(lambda found: _METAVARS[found[1]], name), text


def option_groups(parameters: list[Any]) -> dict[str, list[Any]]:
    """Parameters by the title of their section; arguments come first, options without a group last."""
    groups: dict[str, list[Any]] = {"Arguments": [], "Options": []}
    for parameter in parameters:
        default = "Arguments" if parameter.param_type_name == "argument" else "Options"
        groups.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(parameter)
    groups["Options"] = groups.pop("Options")
    return {title: members for title, members in groups.items() if members}


def epilog(examples: Mapping[str, str], exits: Mapping[int, str]) -> str:
    """What stands below a command's help. examples: purpose and command. exits: exit codes and their meanings."""
    shown = [f"  {what}:\n    $ {command}" for what, command in examples.items()]
    codes = [f"  {code:<3}  {meaning}" for code, meaning in sorted(exits.items())]
    # Paragraphs that begin with \b are not rewrapped.
    return "\n\n".join(f"\b\n{part}" for part in ("\n".join(["Examples:", *shown]), "\n".join(["Exit codes:", *codes])))


def as_typed(message: str, options: Mapping[str, str]) -> str:
    """A message with settings named as options. options: of each setting, the option.

    Settings of one word are options only where the message begins with them.
    """
    words = message.split(" ")
    for place, word in enumerate(words):
        name = word.rstrip(",:.;")
        if name in options and ("_" in name or place == 0):
            words[place] = options[name] + word[len(name) :]
    return " ".join(words)
