"""The command `foldmint-bulk`, also as python -m foldmint_bulk.cli."""

from typing import NoReturn

from foldmint.entry_point import run


def main() -> NoReturn:
    """Run the command."""
    run("foldmint-bulk", "foldmint_bulk.cli.main", extra="bulk", others={"ray": "ray", "s3fs": "s3"})


if __name__ == "__main__":
    main()
