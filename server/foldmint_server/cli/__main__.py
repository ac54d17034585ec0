"""The command `foldmint-server`, also as python -m foldmint_server.cli."""

from typing import NoReturn

from foldmint.entry_point import run


def main() -> NoReturn:
    """Run the command."""
    # A server warns about unknown variables in its log.
    run("foldmint-server", "foldmint_server.cli.main", extra="server", warn=False)


if __name__ == "__main__":
    main()
