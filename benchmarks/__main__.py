"""The benchmarks: `python -m benchmarks` lists them, `python -m benchmarks NAME [options]` runs one."""

import ast
import importlib
import pkgutil
import sys
from pathlib import Path

import typer

FOLDER = Path(__file__).resolve().parent
GROUPS = ("speed", "faults", "codebook", "bulk")
"""Folders of benchmarks; the other folders have code that benchmarks share."""


def modules() -> dict[str, str]:
    """The module of each benchmark, by command."""
    found: dict[str, str] = {}
    for group in GROUPS:
        for module in pkgutil.iter_modules([str(FOLDER / group)]):
            found[module.name.replace("_", "-")] = f"benchmarks.{group}.{module.name}"
    return dict(sorted(found.items()))


def commands() -> dict[str, str]:
    """The first line of each benchmark's docstring, by command, without importing it."""
    lines = {}
    for name, module in modules().items():
        source = FOLDER.parent.joinpath(*module.split(".")).with_suffix(".py").read_text()
        lines[name] = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return lines


def main(arguments: list[str]) -> None:
    """List the benchmarks, or run the one named first, with the remaining arguments as its options."""
    known = modules()
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, known))
        print("\n".join(f"{name:{width}}  {line}" for name, line in commands().items()))
        return
    name, *options = arguments
    if name not in known:
        sys.exit(f"no benchmark {name!r}; there are: {', '.join(known)}")
    module = importlib.import_module(known[name])
    app = typer.Typer(add_completion=False)
    app.command()(module.main)
    app(options, prog_name=f"python -m benchmarks {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
