"""Writes the tables of docs/scale.md from docs/scale/*.json.

    python -m benchmarks scale [--check]

`python -m benchmarks NAME --json docs/scale/NAME.json` measures one. A table is between `<!-- NAME -->` and
`<!-- /NAME -->`; the rest of the page is not changed.
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks._common import ROOT
from benchmarks.speed.performance import update

NAMES = ("scale-costs", "bulk-million", "bulk-exact")
FOLDER = ROOT / "docs" / "scale"
PAGE = ROOT / "docs" / "scale.md"


def main(
    folder: Annotated[Path, typer.Option(help="Folder with the JSON files.")] = FOLDER,
    page: Annotated[Path, typer.Option(help="The page to update.")] = PAGE,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the page is not current.")] = False,
) -> None:
    """Rewrite the tables of the page."""
    update(page, folder, NAMES, "scale", check=check)


if __name__ == "__main__":
    typer.run(main)
