"""Unary calls for many structures: in order, a few at once, patient with a full server, and no longer than it helps."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from foldmint_client import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidStructure,
    Overloaded,
    Retry,
    ServerError,
    Unauthenticated,
    Unavailable,
)
from foldmint_client.transport.parallel_calls import map_in_order

RETRY = Retry(refused_attempts=3)


def failing(error: Exception) -> Callable[[], int]:
    def call() -> int:
        raise error

    return call


def answering(number: int) -> Callable[[], int]:
    return lambda: number


def test_in_order_and_never_more_than_so_many_at_once() -> None:
    lock = threading.Lock()
    running = most = 0

    def call(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02 if number % 3 == 0 else 0)
        with lock:
            running -= 1
        return number

    calls = ((number, lambda number=number: call(number)) for number in range(30))
    assert list(map_in_order(calls, 4)) == [(number, number) for number in range(30)]
    assert 1 < most <= 4


def test_the_input_is_pulled_as_room_comes() -> None:
    pulled = 0

    def calls() -> Iterator[tuple[int, Callable[[], int]]]:
        nonlocal pulled
        for number in range(9):
            pulled += 1
            yield number, answering(number)

    results = map_in_order(calls(), 3)
    assert pulled == 0
    next(results)
    assert pulled == 3
    results.close()  # type: ignore[attr-defined]
    assert pulled == 3


@pytest.mark.parametrize(
    "error", [InvalidStructure("x"), FailedPrecondition("x"), ServerError("x"), DeadlineExceeded("x")]
)
def test_an_error_of_one_structure(error: Exception) -> None:
    calls = [("a", answering(1)), ("b", failing(error)), ("c", answering(3))]
    assert list(map_in_order(calls, 2)) == [("a", 1), ("b", error), ("c", 3)]


@pytest.mark.parametrize("error", [Unavailable("x"), Unauthenticated("x"), RuntimeError("x")])
def test_an_error_of_all(error: Exception) -> None:
    results = map_in_order([("a", answering(1)), ("b", failing(error)), ("c", answering(3))], 1)
    assert next(results) == ("a", 1)
    with pytest.raises(type(error)):
        next(results)


def test_two_timeouts_in_a_row_are_enough() -> None:
    late = failing(DeadlineExceeded("late"))
    kinds = [late, answering(1), late, late, answering(2)]
    results = map_in_order(enumerate(kinds), 1)
    assert [type(result) for _, result in (next(results), next(results), next(results))] == [
        DeadlineExceeded,
        int,
        DeadlineExceeded,
    ]
    with pytest.raises(DeadlineExceeded):
        next(results)


def test_a_full_server_is_asked_again() -> None:
    pauses: list[float] = []
    left = [Overloaded("full"), Overloaded("full")]

    def call() -> int:
        if left:
            raise left.pop()
        return 5

    assert list(map_in_order([("a", call)], 1, RETRY, pauses.append, lambda: 0.5)) == [("a", 5)]
    assert pauses == pytest.approx([RETRY.backoff(1, 0.5), RETRY.backoff(2, 0.5)])
    ((_, result),) = map_in_order([("a", failing(Overloaded("full")))], 1, RETRY, pauses.append)
    assert isinstance(result, Overloaded)
    assert len(pauses) == 4


def test_a_pause_is_no_shorter_than_the_server_says() -> None:
    pauses: list[float] = []
    left = [Overloaded("full", 7.5), Overloaded("full", 0.001)]

    def call() -> int:
        if left:
            raise left.pop(0)
        return 5

    assert list(map_in_order([("a", call)], 1, RETRY, pauses.append, lambda: 0.5)) == [("a", 5)]
    assert pauses == pytest.approx([7.5, RETRY.backoff(2, 0.5)])
