"""Unary calls for many structures: a few at once, results in order, retries while the server is full."""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from foldmint_client.connection import DEFAULT_RETRY, Retry
from foldmint_client.errors import DeadlineExceeded, FailedPrecondition, FoldmintError, Overloaded, ServerError
from foldmint_client.transport.common import LOCAL_ERRORS, Sleep
from foldmint_client.transport.retry import RetryState, call_with_retries

K = TypeVar("K")
T = TypeVar("T")

# Errors of one structure; after all others, nothing more can be expected of the server.
_SINGLE = (*LOCAL_ERRORS, FailedPrecondition, Overloaded, ServerError, DeadlineExceeded)


def map_in_order(
    calls: Iterable[tuple[K, Callable[[], T]]],
    in_flight: int,
    retry: Retry = DEFAULT_RETRY,
    sleep: Sleep = time.sleep,
    chance: Callable[[], float] = random.random,
) -> Iterator[tuple[K, T | FoldmintError]]:
    """What each call returns, or the error that it failed with, with its key and in order.

    The calls are pulled in the caller's thread and made in others, at most `in_flight` at once. A call that raises
    Overloaded is made again after a pause, at least as long as the server asks for, with `Retry.refused_attempts`
    attempts in all. Raises FoldmintError if an error is not that of one structure, or after two DeadlineExceeded in a
    row; calls under way are then abandoned.
    """

    def with_retries(call: Callable[[], T]) -> T:
        return call_with_retries(lambda _: call(), RetryState(retry, retry.refused_attempts, chance=chance), sleep)

    pool = ThreadPoolExecutor(in_flight, "foldmint-call")
    under_way: deque[tuple[K, Future[T]]] = deque()
    late = False
    over = False
    items = iter(calls)
    try:
        while under_way or not over:
            while len(under_way) < in_flight and not over:
                item = next(items, None)
                if item is None:
                    over = True
                    break
                key, call = item
                under_way.append((key, pool.submit(with_retries, call)))
            if not under_way:
                return
            key, future = under_way.popleft()
            try:
                result: T | FoldmintError = future.result()
            except _SINGLE as error:
                if late and isinstance(error, DeadlineExceeded):
                    raise
                result = error
            late = isinstance(result, DeadlineExceeded)
            yield key, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
