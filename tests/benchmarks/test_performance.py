"""The page of figures has what the benchmarks found, and one that fails does not stop the others."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import all as everything
from benchmarks.speed.performance import FOLDER, NAMES, NOT_MEASURED, PAGE, main, number, rendered, section

MACHINE = {
    "cpu": "A CPU",
    "cores": 2,
    "threads": 1,
    "torch": "2.9",
    "load": 1.234,
    "date": "2025-01-02T03:04:05+00:00",
    "commit": "0123456789abcdef",
}
FIGURES: dict[str, Any] = {
    "machine": MACHINE,
    "tables": [
        {"title": "Rates", "columns": ["what | why", "rate"], "rows": [["a\nb", 12345.6], ["c", 0.5], ["d", "–"]]}
    ],
    "bars": [
        {"measure": "share", "bar": "at least 0.6", "found": 0.71234, "reached": True},
        {"measure": "memory, MB", "bar": "under 400", "found": 4096, "reached": False},
    ],
}


def blank() -> str:
    return "Words.\n" + "\n".join(f"<!-- {name} -->\ntyped by hand\n<!-- /{name} -->\nMore." for name in NAMES)


def test_the_pages_tables_are_what_the_benchmarks_found() -> None:
    assert PAGE.read_text() == rendered(PAGE.read_text(), FOLDER)


def test_figures_become_tables_and_bars(tmp_path: Path) -> None:
    (tmp_path / "limit.json").write_text(json.dumps(FIGURES))
    assert section("limit", tmp_path).splitlines() == [
        "**Rates**",
        "",
        "| what \\| why | rate |",
        "| --- | ---: |",
        "| a b | 12,346 |",
        "| c | 0.5 |",
        "| d | – |",
        "",
        "| measure | bar | found | reached |",
        "| --- | --- | ---: | ---: |",
        "| share | at least 0.6 | 0.7123 | yes |",
        "| memory, MB | under 400 | 4,096 | **no** |",
        "",
        "*A CPU, 2 core(s), 1 thread(s), torch 2.9, load 1.2; 2025-01-02, commit 0123456789ab: "
        "`python -m benchmarks limit`.*",
    ]


def test_only_what_is_between_markers_is_rewritten(tmp_path: Path) -> None:
    (tmp_path / "growth.json").write_text(json.dumps(FIGURES))
    page = rendered(blank(), tmp_path)
    assert "typed by hand" not in page
    assert page.count(NOT_MEASURED) == len(NAMES) - 1
    assert page.count("More.") == len(NAMES)
    assert page.startswith("Words.\n<!-- reference -->\n")
    assert rendered(page, tmp_path) == page


def test_a_page_with_other_tables_fails_the_check_and_is_then_rewritten(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(blank())
    with pytest.raises(SystemExit, match="is not what"):
        main(tmp_path, page, check=True)
    assert page.read_text() == blank()
    main(tmp_path, page)
    main(tmp_path, page, check=True)


def test_a_page_without_a_marker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="<!-- served --> and <!-- /served -->"):
        rendered(blank().replace("<!-- /served -->", ""), tmp_path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"tables": None}, "TypeError"),
        ({"machine": {}}, "KeyError"),
        ({"tables": [{"title": "", "columns": ["a"], "rows": [[1, 2]]}]}, "a row of 2 cells under 1 columns"),
        ({"tables": [{"title": "", "columns": ["a"], "rows": [[[1]]]}]}, "a text or a number"),
    ],
)
def test_a_file_that_is_no_benchmarks_is_refused(change: dict[str, Any], error: str, tmp_path: Path) -> None:
    (tmp_path / "limit.json").write_text(json.dumps(FIGURES | change))
    with pytest.raises(ValueError, match=rf"limit\.json is not a benchmark's.*{error}"):
        section("limit", tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (50_000, "50,000"), (4321.5, "4,322"), (2.71828, "2.718"), (1e-5, "0.00001"), (12.0, "12")],
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_failure_does_not_stop_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    failed = everything.run(
        {
            "first": [sys.executable, "-S", "-c", "raise SystemExit(3)"],
            "second": [sys.executable, "-S", "-c", f"open({str(made)!r}, 'x'); print('measured')"],
        }
    )
    assert failed == ["first"]
    assert made.exists()
    assert capfd.readouterr().out == "== first\n== first failed with status 3\n== second\nmeasured\n"


def test_all_runs_those_that_there_are_with_a_file_each(tmp_path: Path) -> None:
    commands = everything.commands(tmp_path)
    assert "limit" in commands
    for name, command in commands.items():
        assert command[-4:] == ["benchmarks", name, "--json", str(tmp_path / f"{name}.json")]


def test_all_fails_at_its_end_if_one_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everything, "commands", lambda folder: {"limit": [sys.executable, "-S", "-c", "raise OSError"]})
    with pytest.raises(SystemExit, match="failed: limit"):
        everything.main(tmp_path)
