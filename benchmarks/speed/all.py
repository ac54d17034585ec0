"""Runs all benchmarks of docs/performance.md, one after another, then writes the page.

    python -m benchmarks all --folder docs/performance

Each runs in its own process. If one fails, the others still run, and this command fails at the end.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.__main__ import modules
from benchmarks._common import ROOT
from benchmarks.speed.performance import FOLDER, NAMES, PAGE, rendered, section


def main(folder: Annotated[Path, typer.Option(help="Where the benchmarks' JSON goes.")] = FOLDER) -> None:
    """Measure, then rewrite the page's tables; those of another folder than the page's own are printed."""
    folder = folder.resolve()  # the benchmarks run in the repository's root
    folder.mkdir(parents=True, exist_ok=True)
    failed = run(commands(folder))
    try:
        if folder == FOLDER:
            PAGE.write_text(rendered(PAGE.read_text(), folder))
        else:
            print("\n\n".join(section(name, folder) for name in NAMES))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        failed.append("performance")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def commands(folder: Path) -> dict[str, list[str]]:
    """The command of each benchmark that exists; a message is printed for each other name."""
    found, known = {}, modules()
    for name in NAMES:
        if name in known:
            found[name] = [sys.executable, "-m", "benchmarks", name, "--json", str(folder / f"{name}.json")]
        else:
            print(f"== {name}: no such benchmark, skipped", flush=True)
    return found


def run(each: Mapping[str, Sequence[str]]) -> list[str]:
    """Run commands one after another, their output where this process' own goes; the names of those that failed."""
    failed = []
    for name, command in each.items():
        print(f"== {name}", flush=True)
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if status:
            print(f"== {name} failed with status {status}", flush=True)
            failed.append(name)
    return failed


if __name__ == "__main__":
    typer.run(main)
