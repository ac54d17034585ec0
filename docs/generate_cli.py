"""Writes docs/cli.md, the reference of the command `foldmint`, from the command itself.

.venv/bin/python docs/generate_cli.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from foldmint_client.cli import app

PAGE = Path(__file__).with_name("cli.md")

_HEAD = """\
# The command `foldmint`

<!-- Written by docs/generate_cli.py from the command itself; change it there. -->
"""


def page() -> str:
    """The whole page, in Markdown."""
    group = typer.main.get_command(app)
    if not isinstance(group, typer.core.TyperGroup):
        raise TypeError("foldmint has no commands")
    context = group.make_context("foldmint", [], resilient_parsing=True)
    parts = [_HEAD, f"{group.help}\n", "\n".join(_list(group, context)), *_epilog(group.epilog)]
    for name, command in group.commands.items():
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        usage = " ".join(command.collect_usage_pieces(inner))
        parts += [f"## foldmint {name}\n", f"{_code(f'foldmint {name} {usage}')}\n", *_paragraphs(command.help or "")]
        parts += ["\n".join(_list(command, inner)), *_epilog(command.epilog)]
    return "\n".join(parts).rstrip() + "\n"


def _list(command: Any, context: Any) -> Iterator[str]:  # noqa: ANN401 (their classes are private)
    """A line for each argument and option, with what its help tells."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
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
    PAGE.write_text(page(), encoding="utf-8")
