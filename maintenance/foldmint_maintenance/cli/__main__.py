"""The command `foldmint-maintenance`, also as python -m foldmint_maintenance.cli."""

from typing import NoReturn

from foldmint.entry_point import run


def main() -> NoReturn:
    """Run the command."""
    run("foldmint-maintenance", "foldmint_maintenance.cli.main", extra="maintenance")


if __name__ == "__main__":
    main()
