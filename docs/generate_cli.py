"""Writes docs/cli.md, docs/cli-maintenance.md and docs/cli-bulk.md, the references of the commands, from themselves.

.venv/bin/python docs/generate_cli.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from foldmint.command_line import GroupedCommand, help_record, option_groups
from foldmint_bulk.cli.main import app as bulk
from foldmint_client.cli.main import app as client
from foldmint_maintenance.cli.main import app as maintenance

PAGES = {
    "cli.md": ("foldmint", client),
    "cli-maintenance.md": ("foldmint-maintenance", maintenance),
    "cli-bulk.md": ("foldmint-bulk", bulk),
}

_HEAD = """\
# The command `{}`

<!-- Written by docs/generate_cli.py from the command itself; change it there. -->
"""


def pages() -> dict[str, str]:
    """Whole pages, in Markdown, by their files in docs/."""
    return {file: "\n".join(_page(name, app)).rstrip() + "\n" for file, (name, app) in PAGES.items()}


def _page(name: str, app: typer.Typer) -> Iterator[str]:
    command: Any = typer.main.get_command(app)
    context: Any = command.make_context(name, [], resilient_parsing=True)
    yield _HEAD.format(name)
    if not isinstance(command, typer.core.TyperGroup):
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"{_code(f'{name} {usage}')}\n"
    yield from [*_paragraphs(command.help or ""), "\n".join(_list(command, context)), *_epilog(command.epilog)]
    if isinstance(command, typer.core.TyperGroup):
        yield from _commands(command, context, name)


def _commands(group: Any, context: Any, path: str) -> Iterator[str]:  # noqa: ANN401 (their classes are private)
    """A section for each command, those of groups one after another."""
    for name, command in group.commands.items():
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        whole = f"{path} {name}"
        usage = " ".join(command.collect_usage_pieces(inner))
        yield from [f"## {whole}\n", f"{_code(f'{whole} {usage}')}\n", *_paragraphs(command.help or "")]
        yield from ["\n".join(_list(command, inner)), *_epilog(command.epilog)]
        if isinstance(command, typer.core.TyperGroup):
            yield from _commands(command, inner, whole)


def _list(command: Any, context: Any) -> Iterator[str]:  # noqa: ANN401 (their classes are private)
    """A line for each argument and option, with its help; in sections where the command's help has them."""
    parameters = command.get_params(context)
    grouped = isinstance(command, GroupedCommand)
    for title, members in (option_groups(parameters) if grouped else {"": parameters}).items():
        if grouped:
            yield f"{title}:\n"
        for parameter in members:
            record = help_record(parameter, context)
            if record is not None:
                yield f"- {_code(record[0])}: {' '.join(record[1].split()).replace('<', '&lt;')}"
        yield ""


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield " ".join(paragraph.split()).replace("<", "&lt;") + "\n"


def _epilog(text: str | None) -> Iterator[str]:
    """Examples as a block that can be copied, exit codes as a list, anything else as text."""
    for part in (text or "").split("\b\n"):
        title, *lines = part.strip().splitlines() or [""]
        if title == "Examples:":
            shown = [line.strip() for line in lines]
            yield f"{title}\n\n```console"
            for what, command in zip(shown[::2], shown[1::2], strict=True):
                yield f"# {what.removesuffix(':')}\n{command}"
            yield "```\n"
        elif title == "Exit codes:":
            codes = [line.split(maxsplit=1) for line in lines]
            yield "\n".join([f"{title}\n", *(f"- {_code(code)}: {meaning}" for code, meaning in codes), ""])
        elif title:
            yield from _paragraphs(part.strip())


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    for file, text in pages().items():
        Path(__file__).with_name(file).write_text(text, encoding="utf-8")
