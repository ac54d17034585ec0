"""docs/cli.md tells of the command as it is."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDMINT_SERVER", "elsewhere:1")  # is no part of it
    monkeypatch.setenv("COLUMNS", "40")
    written = runpy.run_path(str(DOCS / "generate_cli.py"))["page"]()
    assert written == (DOCS / "cli.md").read_text(), "run .venv/bin/python docs/generate_cli.py"
    for text in ("## foldmint watch", "- `--rows-per-shard N`: ", "$ foldmint tokenize --resume", "- `3`: no server"):
        assert text in written
