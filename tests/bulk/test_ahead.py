"""What is produced ahead comes in order, with its errors, and ends with its caller."""

import threading
from collections.abc import Iterator

import pytest

from foldmint_bulk.ahead import ahead


def test_items_come_in_order_and_a_bounded_number_ahead() -> None:
    produced = list[int]()

    def numbers() -> Iterator[int]:
        for number in range(100):
            produced.append(number)
            yield number

    taken = ahead(numbers(), 3)
    assert next(taken) == 0
    assert list(taken) == list(range(1, 100))
    assert produced == list(range(100))
    other = ahead(iter(range(10**9)), 3)
    assert [next(other) for _ in range(5)] == list(range(5))
    other.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_an_error_comes_in_its_place() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise OSError("lost")

    taken = ahead(numbers(), 3)
    assert next(taken) == 1
    with pytest.raises(OSError, match="lost"):
        next(taken)
