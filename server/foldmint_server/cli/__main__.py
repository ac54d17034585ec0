"""python -m foldmint_server.cli: the command `foldmint-server`."""

from foldmint_server.cli.main import app

if __name__ == "__main__":
    app()
