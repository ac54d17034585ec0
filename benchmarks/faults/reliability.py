"""Writes the tables of docs/reliability.md from docs/reliability/*.json.

    python -m benchmarks reliability [--check]

`python -m benchmarks NAME --json docs/reliability/NAME.json` measures, for the names fuzz, chaos, overload and soak. A
table is between `<!-- NAME -->` and `<!-- /NAME -->`; the rest of the page is not changed.
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks._common import ROOT
from benchmarks.speed.performance import update

NAMES = ("fuzz", "chaos", "overload", "soak")
FOLDER = ROOT / "docs" / "reliability"
PAGE = ROOT / "docs" / "reliability.md"


def main(
    folder: Annotated[Path, typer.Option(help="Folder with the JSON files.")] = FOLDER,
    page: Annotated[Path, typer.Option(help="The page to update.")] = PAGE,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the page is not current.")] = False,
) -> None:
    """Rewrite the tables of the page."""
    update(page, folder, NAMES, "reliability", check=check)


if __name__ == "__main__":
    typer.run(main)
