"""A scraper is at work when it should be, what is compared is what is meant, and bars fail where they should."""

import pytest

from benchmarks.speed.scrape import Window, bars, dearer, slower, tables, windows, written
from helpers.support import running_server


@pytest.mark.slow
def test_windows_with_a_scraper_have_scrapes_and_others_none() -> None:
    with running_server("--threads", "1") as server:
        three = windows(server.address, server.metrics, 1.0, 0.2, 16)
    assert [one.scrapes > 1 for one in three] == [False, True, False]
    assert all(one.residues_per_second > 0 and 0 < one.p50_ms <= one.p99_ms for one in three)
    assert all(0 < one.cpu_ms < 2000 * seconds_a_thousand(one) for one in three)


def seconds_a_thousand(one: Window) -> float:
    return 1000 / one.residues_per_second


def test_all_that_is_compared_writes_all_codes() -> None:
    found = written(1)
    assert found.keys() == {"the server", "prometheus-client alone"}
    assert all(len(taken) == 1 and taken[0] > 0 for taken in found.values())


def _three(before: float, beside: float, after: float) -> list[Window]:
    """Windows of such rates, with time on the CPU as one who computes alone has it."""
    return [Window(rate, 1.0, 2.0, 1e6 / rate, count) for rate, count in ((before, 0), (beside, 3), (after, 0))]


def test_a_window_is_compared_with_both_neighbors() -> None:
    assert slower([_three(90.0, 90.0, 110.0)]) == pytest.approx(10)
    # Of a machine that grows slower all the while, nothing is laid to the scraper.
    assert slower([_three(110.0, 100.0, 90.0), _three(90.0, 80.0, 70.0)]) == pytest.approx(0)
    assert dearer([_three(100.0, 80.0, 100.0)]) == pytest.approx(25)


def test_bars_fail_where_they_should() -> None:
    good = bars({"under load": [30, 40, 90]}, [_three(100.0, 99.1, 102.0)])
    assert [bar["reached"] for bar in good] == [True, True, True]  # 1.9 %, where chance makes 2
    bad = bars({"under load": [30, 60, 90]}, [_three(100.0, 97.0, 100.0)])
    assert [bar["reached"] for bar in bad] == [False, False, False]


def test_tables_have_a_row_for_each_window() -> None:
    found = [_three(100.0, 99.0, 101.0), _three(200.0, 197.0, 203.0)]
    shown = tables({"the server": [1.0]}, {"idle": [1.0]}, found, 1.0)[-1]
    assert [row[:4] for row in shown["rows"]] == [  # type: ignore[attr-defined]
        ["alone", 150, 1, 2],
        ["beside a scrape each 1 s", 148, 1, 2],
        ["alone again", 152, 1, 2],
    ]
