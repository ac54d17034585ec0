"""The command `foldmint`, also as python -m foldmint_client."""

from typing import NoReturn

from foldmint.entry_point import run


def main() -> NoReturn:
    """Run the command."""
    run(
        "foldmint",
        "foldmint_client.cli.main",
        extra=None,
        others={"foldcomp": "foldcomp", "pyarrow": "parquet"},
    )


if __name__ == "__main__":
    main()
