"""python -m foldmint_maintenance.cli: the command `foldmint-maintenance`."""

from foldmint_maintenance.cli.main import app

if __name__ == "__main__":
    app()
