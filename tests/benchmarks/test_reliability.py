"""The commands behind docs/reliability.md, in short: they find nothing wrong, say so, and go on where they were."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.faults import chaos, fuzz, soak
from benchmarks.faults.reliability import FOLDER, NAMES, PAGE, main
from benchmarks.speed.performance import rendered
from benchmarks.stress.progress import Progress
from helpers.support import ROOT


def test_the_pages_tables_are_what_was_found() -> None:
    assert PAGE.read_text() == rendered(PAGE.read_text(), FOLDER, NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_was_promised_was_missed(name: str) -> None:
    found = json.loads((FOLDER / f"{name}.json").read_text())
    assert [bar["measure"] for bar in found["bars"] if not bar["reached"]] == []


def test_each_promise_names_tests_that_there_are() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE.read_text()))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_a_page_with_other_tables_fails_the_check_and_is_then_rewritten(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("\n".join(f"<!-- {name} -->\ntyped by hand\n<!-- /{name} -->" for name in NAMES))
    with pytest.raises(SystemExit, match="is not what"):
        main(FOLDER, page, check=True)
    main(FOLDER, page)
    main(FOLDER, page, check=True)
    assert "typed by hand" not in page.read_text()


def bars(file: Path) -> dict[str, Any]:
    return {bar["measure"]: bar["reached"] for bar in json.loads(file.read_text())["bars"]}


@pytest.mark.slow
def test_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "fuzz.json"
    fuzz.main(file, files=100, messages=60, seed=1)
    (table,) = json.loads(file.read_text())["tables"]
    assert [row[1] for row in table["rows"]] == [100, 60]
    assert bars(file) == {"neither taken nor refused as promised": True}


@pytest.mark.slow
def test_mixed_load_with_swaps(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        soak.main(tmp_path / "soak.json", minutes=0.25, swap_seconds=3, sample_seconds=0.25)
    finally:
        torch.set_num_threads(threads)
    done, process = json.loads((tmp_path / "soak.json").read_text())["tables"]
    counts = dict(done["rows"])
    assert counts.pop("answers that were wrong") == 0
    assert counts["swaps"] >= 3
    assert all(counts.values())
    assert [row[0] for row in process["rows"]] == ["memory", "threads", "descriptors"]


def test_growth_is_seen() -> None:
    def samples(memory: float, threads: float) -> list[soak.Sample]:
        return [soak.Sample(float(now), 500 + memory * now, 10 + int(threads * now), 20) for now in range(40)]

    assert soak.growth(samples(0, 0)) == {"memory": pytest.approx(0, abs=1e-6), "threads": 0, "descriptors": 0}
    grown = soak.growth(samples(1, 0.1))
    assert grown["memory"] == pytest.approx(29)
    assert grown["threads"] == 2


def test_jobs_are_told_and_one_that_was_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs themselves are those of tests/stress/test_envoy.py and test_proxy.py."""
    done: list[str] = []

    def job(name: str, *arguments: object) -> list[object]:
        done.append(name)
        if len(done) == 3:
            raise KeyboardInterrupt
        return [name, 10, 200, 3, 2, 0, 0, 0, 0, 0, 1.5]

    monkeypatch.setattr(chaos, "over_a_line", job)
    monkeypatch.setattr(chaos, "killing", job)
    with pytest.raises(KeyboardInterrupt):
        chaos.main(tmp_path / "chaos.json", structures=10, kills=1)
    chaos.main(tmp_path / "chaos.json", structures=10, kills=1)
    assert done[2:] == [done[2], done[2], "one server, killed"]
    assert [path.name for path in tmp_path.iterdir()] == ["chaos.json"]
    assert all(bars(tmp_path / "chaos.json").values())


def test_a_run_of_other_settings_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    Progress(file, {"seed": 1}, {"next": 5}).save()
    assert Progress(file, {"seed": 1}, {"next": 0}).state == {"next": 5}
    assert Progress(file, {"seed": 2}, {"next": 0}).state == {"next": 0}
