"""The command, run in this process against a scripted server."""

import json
from typing import TYPE_CHECKING

from typer.testing import CliRunner, Result

from foldmint_client.cli.main import app

if TYPE_CHECKING:
    from client.conftest import ScriptedServer


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [*arguments], input=stdin)


def tokenize(server: "ScriptedServer", *arguments: str, stdin: bytes | None = None) -> Result:
    return run("tokenize", "--server", server.target, *arguments, stdin=stdin)


def rows(result: Result) -> list[dict[str, object]]:
    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in result.stdout.splitlines()]
