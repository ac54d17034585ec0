"""The benchmarks: `python -m benchmarks` lists them, `python -m benchmarks NAME [options]` runs one."""

import ast
import importlib
import pkgutil
import sys
from pathlib import Path

import typer

FOLDER = Path(__file__).resolve().parent


def commands() -> dict[str, str]:
    """First line of each benchmark's docstring by its command; nothing is imported for it."""
    names = sorted(
        found.name for found in pkgutil.iter_modules([str(FOLDER)]) if not found.ispkg and found.name[0] != "_"
    )
    documents = {name: ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or "" for name in names}
    return {name.replace("_", "-"): text.partition("\n")[0] for name, text in documents.items()}


def main(arguments: list[str]) -> None:
    """List the benchmarks, or run the one that is named first with the options after it."""
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, known))
        print("\n".join(f"{name:{width}}  {line}" for name, line in known.items()))
        return
    name, *options = arguments
    if name not in known:
        sys.exit(f"no benchmark {name!r}; there are: {', '.join(known)}")
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    app = typer.Typer(add_completion=False)
    app.command()(module.main)
    app(options, prog_name=f"python -m benchmarks {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
