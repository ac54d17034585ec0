"""Writes the tables of docs/performance.md from docs/performance/*.json.

    python -m benchmarks performance [--check]

`python -m benchmarks NAME --json docs/performance/NAME.json` measures one, `python -m benchmarks all` all of them. A
table is between `<!-- NAME -->` and `<!-- /NAME -->`; the rest of the page is not changed.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks._common import ROOT

NAMES = (
    "reference",
    "limit",
    "profile",
    "reading",
    "large-files",
    "served",
    "general-servers",
    "growth",
    "scrape",
    "precision",
    "startup",
)
FOLDER = ROOT / "docs" / "performance"
PAGE = ROOT / "docs" / "performance.md"
NONE = "–"
NOT_MEASURED = "Not measured yet."


def main(
    folder: Annotated[Path, typer.Option(help="Folder with the benchmarks' JSON files.")] = FOLDER,
    page: Annotated[Path, typer.Option(help="The page to update.")] = PAGE,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the page is not current.")] = False,
) -> None:
    """Rewrite the tables of the page."""
    update(page, folder, NAMES, "performance", check=check)


def update(page: Path, folder: Path, names: Sequence[str], command: str, *, check: bool) -> None:
    """Rewrite a page's tables; check: write nothing, and exit if it is not current. command: that writes the page."""
    try:
        before = page.read_text()
        after = rendered(before, folder, names)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    if check and before != after:
        sys.exit(f"{page} is not what {folder} renders to: python -m benchmarks {command}")
    if before != after:
        page.write_text(after)


def rendered(page: str, folder: Path, names: Sequence[str] = NAMES) -> str:
    """The page with all tables, each by its name, as the files of the folder have them.

    Raises ValueError for a page without a table's two markers, and for a file that is not a benchmark's.
    """
    for name in names:
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
            raise ValueError(f"the page must have {begin} and {end} after it, each once")
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{section(name, folder)}\n{end}{rest.split(end)[1]}"
    return page


def section(name: str, folder: Path) -> str:
    """Tables and bars of one benchmark, as Markdown, and where and when they were measured.

    Raises ValueError for a file that is not a benchmark's.
    """
    file = folder / f"{name}.json"
    if not file.exists():
        return NOT_MEASURED
    try:
        figures = json.loads(file.read_text())
        parts = [part for one in figures["tables"] for part in (f"**{_cell(one['title'])}**", _table(one))]
        if figures.get("bars"):
            parts.append(_table(_judged(figures["bars"])))
        parts.append(_where(name, figures["machine"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not a benchmark's: {type(error).__name__}: {error}") from error
    return "\n\n".join(parts)


def number(value: float) -> str:
    """Four digits, or all of a whole number's, with commas."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    # No exponents, for they read badly in a table.
    text = f"{value:.4g}"
    return text if "e" not in text else f"{value:.{3 - int(text.split('e')[1])}f}".rstrip("0").rstrip(".")


def _table(table: Mapping[str, Any]) -> str:
    columns: Sequence[str] = table["columns"]
    rows: Sequence[Sequence[object]] = table["rows"]
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row of {len(row)} cells under {len(columns)} columns: {row}")
    right = [
        all(not isinstance(row[place], str) or row[place] == NONE for row in rows) for place in range(len(columns))
    ]
    lines = [[_cell(one) for one in columns], ["---:" if one else "---" for one in right]]
    lines += [[_cell(one) for one in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _judged(bars: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = ("measure", "bar", "found", "reached")
    return {"columns": keys, "rows": [[bar[key] for key in keys] for bar in bars]}


def _cell(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "**no**"
        case int() | float():
            return number(value)
        case str():
            return re.sub(r"\s+", " ", value).replace("|", "\\|")
        case None:
            return NONE
        case _:
            raise TypeError(f"a cell is a text or a number, not {value!r}")


def _where(name: str, machine: Mapping[str, Any]) -> str:
    commit = str(machine["commit"] or "unknown")[:12]
    return (
        f"*{machine['cpu']}, {machine['cores']} core(s), {machine['threads']} thread(s), torch {machine['torch']}, "
        f"load {machine['load']:.1f}; {machine['date'][:10]}, commit {commit}: `python -m benchmarks {name}`.*"
    )


if __name__ == "__main__":
    typer.run(main)
