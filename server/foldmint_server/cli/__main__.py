"""The command `foldmint-server`, also as python -m foldmint_server.cli."""

import sys
from typing import NoReturn

from foldmint.entry_point import run


def main() -> NoReturn:
    """Run the command."""
    # A server warns about unknown variables in its log, commands below this one and --check-config do so themselves.
    prints = bool(sys.argv[1:]) and set(sys.argv[1:]) <= {"-h", "--help", "--version"}
    run("foldmint-server", "foldmint_server.cli.main", extra="server", warn=prints)


if __name__ == "__main__":
    main()
