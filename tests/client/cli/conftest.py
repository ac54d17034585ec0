"""Fixtures of the command's tests: files, whose names tell what they hold."""

from pathlib import Path

import pytest


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    names = [f"{number}.pdb" for number in (3, 1, 2)]
    for name in names:
        Path(name).write_text(name.removesuffix(".pdb"))
    return names
