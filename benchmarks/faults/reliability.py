"""What was tried to break it, as the tables of docs/reliability.md: rewrites them from docs/reliability/*.json.

    python -m benchmarks reliability [--check]

`python -m benchmarks NAME --json docs/reliability/NAME.json` tries and measures, for the names fuzz, chaos, overload
and soak. A table stands between `<!-- NAME -->` and `<!-- /NAME -->`; all else of the page is left as it is.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks._common import ROOT
from benchmarks.speed.performance import rendered

NAMES = ("fuzz", "chaos", "overload", "soak")
FOLDER = ROOT / "docs" / "reliability"
PAGE = ROOT / "docs" / "reliability.md"


def main(
    folder: Annotated[Path, typer.Option(help="Where the JSON is.")] = FOLDER,
    page: Annotated[Path, typer.Option(help="The page whose tables are rewritten.")] = PAGE,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the page has other tables.")] = False,
) -> None:
    """Rewrite the tables of the page."""
    try:
        before = page.read_text()
        after = rendered(before, folder, NAMES)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    if check and before != after:
        sys.exit(f"{page} is not what {folder} renders to: python -m benchmarks reliability")
    if before != after:
        page.write_text(after)


if __name__ == "__main__":
    typer.run(main)
