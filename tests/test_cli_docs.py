"""The references of the commands tell of them as they are."""

import re
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foldmint_server.cli.main import app as server

DOCS = Path(__file__).parents[1] / "docs"
TYPES = re.compile(r"<(?:path|str|int|float|list)\b")
PARTS = {
    "cli.md": (
        "## foldmint watch",
        "- `--rows-per-shard N`: ",
        "$ foldmint tokenize --resume",
        "- `3`: the server cannot be reached",
    ),
    "cli-maintenance.md": ("## foldmint-maintenance repair", "## foldmint-maintenance codebooks prune", "- `--gate"),
    "cli-bulk.md": ("- `--unit-structures N`: ", "$SLURM_ARRAY_TASK_ID/100", "- `4`: all units"),
}


def test_the_references_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDMINT_SERVER", "elsewhere:1")  # is no part of it
    monkeypatch.setenv("COLUMNS", "40")
    written = runpy.run_path(str(DOCS / "generate_cli.py"))["pages"]()
    assert written.keys() == PARTS.keys()
    for file, page in written.items():
        assert page == (DOCS / file).read_text(), "run .venv/bin/python docs/generate_cli.py"
        for text in PARTS[file]:
            assert text in page
        assert not TYPES.findall(page)


@pytest.mark.parametrize("command", ["", "tokens create", "tokens list", "tokens revoke", "password"])
def test_values_of_the_servers_options_have_names(command: str) -> None:
    """As those in the references, not the types that typer writes."""
    text = CliRunner().invoke(server, [*command.split(), "--help"]).stdout
    assert "--" in text
    assert not TYPES.findall(text)
