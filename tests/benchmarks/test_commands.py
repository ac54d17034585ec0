"""The list of benchmarks names every module, and times are taken in turn."""

import json
from pathlib import Path

import pytest

from benchmarks import _common
from benchmarks.__main__ import FOLDER, GROUPS, commands, main


def test_the_list_names_every_module_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    modules = [file for file in FOLDER.rglob("*.py") if "\ndef main(" in file.read_text() and file.stem[0] != "_"]
    assert set(commands()) == {file.stem.replace("_", "-") for file in modules if file.parent.name in GROUPS}
    assert not [file for file in FOLDER.glob("*.py") if file.stem[0] != "_"]
    assert "swap" in commands()
    main([])
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed == commands()


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(SystemExit, match=r"no benchmark 'swop'.*swap"):
        main(["swop"])


def test_tasks_take_turns_and_ratios_are_of_pairs() -> None:
    calls: list[str] = []
    seconds = _common.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, 2)  # type: ignore[misc]
    assert calls == ["a", "b", "a", "b"]
    assert all(len(times) == 2 for times in seconds.values())
    assert _common.ratio([2, 6, 40], [1, 2, 10]) == 3


def test_figures_come_with_the_machines_facts(tmp_path: Path) -> None:
    _common.write(tmp_path / "new" / "a.json", {"x": 1})
    read = json.loads((tmp_path / "new" / "a.json").read_text())
    assert read["x"] == 1
    assert set(read["machine"]) == {"cpu", "cores", "threads", "torch", "load", "date", "commit"}
