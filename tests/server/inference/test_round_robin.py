"""Turns: round the callers, and of each caller round what it has."""

import pytest

from foldmint_server.inference.round_robin import RoundRobin


def of(**waiting: str) -> RoundRobin[str]:
    turns: RoundRobin[str] = RoundRobin()
    for caller, things in waiting.items():
        for thing in things:
            turns.push(caller, thing)
    return turns


def drained(turns: RoundRobin[str]) -> str:
    return "".join(turns.pop() for _ in range(len(turns)))


def test_callers_take_turns() -> None:
    assert drained(of(a="123", b="x", c="yz")) == "1xy2z3"


def test_what_was_cut_off_is_next() -> None:
    turns = of(a="12", b="x")
    assert turns.pop() == "1"
    turns.push_front("a", "1")
    assert drained(turns) == "1x2"


def test_removing() -> None:
    turns = of(a="12", b="x")
    assert turns.remove("a", "1")
    assert not turns.remove("a", "1")
    assert not turns.remove("z", "1")
    assert turns.remove("b", "x")
    assert len(turns) == 1
    assert drained(turns) == "2"


def test_nothing_waits() -> None:
    turns = of()
    assert not turns
    with pytest.raises(KeyError, match="the queue is empty"):
        turns.pop()


def test_clearing() -> None:
    turns = of(a="12", b="x")
    assert sorted(turns.clear()) == ["1", "2", "x"]
    assert len(turns) == 0
