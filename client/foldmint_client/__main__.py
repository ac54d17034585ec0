"""python -m foldmint_client: the command `foldmint`."""

from foldmint_client.cli.main import app

if __name__ == "__main__":
    app(prog_name="foldmint")
