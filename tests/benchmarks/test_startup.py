"""What the benchmark of starts measures, and what it is held to."""

import subprocess
import sys

import pytest

from benchmarks.speed import startup
from benchmarks.speed.startup import COMMANDS, Taken, bars, measured, run, table


def test_the_first_time_is_not_counted_and_tasks_take_turns() -> None:
    calls: list[str] = []

    def task(name: str) -> Taken:
        calls.append(name)
        return Taken(float(len(calls)), 0.0)

    found = measured({"a": lambda: task("a"), "b": lambda: task("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert [taken.elapsed for taken in found["a"]] == [3.0, 5.0]


def test_a_process_is_timed_and_its_failure_told() -> None:
    taken = run([sys.executable, "-S", "-c", "sum(range(1_000_000))"])
    assert taken.elapsed > 0
    assert taken.cpu > 0
    with pytest.raises(subprocess.CalledProcessError):
        run([sys.executable, "-S", "-c", "raise SystemExit(1)"])


def test_bars_are_held_to_elapsed_time() -> None:
    medians = {name: Taken(0.1, 9.0) for name in COMMANDS} | {"foldmint-server, until SERVING": Taken(3.0, 9.0)}
    assert [bar["reached"] for bar in bars(medians)] == [True, True, True]
    slow = {name: Taken(taken.elapsed + 0.01, 0.0) for name, taken in medians.items()}
    assert [bar["reached"] for bar in bars(slow)] == [False, False, False]
    assert table(medians)["columns"] == ["process", "elapsed, s", "CPU, s"]


@pytest.mark.slow
def test_a_real_server_comes_to_serve() -> None:
    taken = startup.serve()
    assert taken.cpu > 0
    assert 0 < taken.elapsed < 120
