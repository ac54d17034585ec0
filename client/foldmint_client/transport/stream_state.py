"""The structures of a stream that are in flight: what to send, what to send again, which results to return."""

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from foldmint.v1 import tokenizer_pb2
from foldmint_client.connection import Retry
from foldmint_client.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    FoldmintError,
    InvalidOptions,
    Overloaded,
    ServerError,
    Unavailable,
)
from foldmint_client.models.job_version import JobVersion
from foldmint_client.models.responses import Tokens, to_tokens
from foldmint_client.transport.retry import RetryState
from foldmint_client.transport.status import from_failure

K = TypeVar("K")
Message = tokenizer_pb2.TokenizeStreamRequest
Result = Tokens | FoldmintError

_TRANSIENT = (Overloaded, Unavailable)


@dataclass
class _Entry(Generic[K]):
    key: K
    message: Message | None = None  # until it is answered
    retries: RetryState | None = None  # from the first rejection on
    result: Result | None = None


class InFlightTracker(Generic[K]):
    """Bookkeeping of a stream, without input or output, shared by both clients.

    An entry exists from the moment its structure is pulled from the caller's input until its result is returned; there
    are never more than `in_flight`. Its message is kept until it is answered, so that it can be sent again if the
    stream breaks. Answers are matched by id: nothing is lost, and nothing is returned twice. timeout: the longest wait
    for an answer, in seconds.
    """

    def __init__(
        self,
        in_flight: int,
        ordered: bool,
        retry: Retry,
        timeout: float,
        version: JobVersion,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if in_flight < 1:
            raise InvalidOptions(f"in_flight is 1 or more, not {in_flight}", "in_flight")
        self._in_flight, self._ordered, self._retry = in_flight, ordered, retry
        self._timeout, self._clock, self._chance = timeout, clock, chance
        self._entries: dict[int, _Entry[K]] = {}  # by id, in the input's order
        self._done: deque[int] = deque()  # ids with results, in the order of arrival; unused if `ordered`
        self._sent: set[int] = set()  # ids that the server has
        self._retries: dict[int, float] = {}  # ids to send again, and when
        self._next_id = 0
        self._stream_retries = RetryState(
            retry, retry.attempts, _TRANSIENT, longest_pause=timeout, clock=clock, chance=chance
        )
        self._stalls = 0  # since the last answer
        self._version = version  # of the job, as far as it is known

    @property
    def has_room(self) -> bool:
        """Whether another structure may be pulled."""
        return len(self._entries) < self._in_flight

    @property
    def empty(self) -> bool:
        """Whether every result was returned."""
        return not self._entries

    @property
    def unanswered(self) -> bool:
        """Whether anything pulled has no result yet."""
        return bool(self._sent or self._retries)

    def add(self, key: K, request: tokenizer_pb2.TokenizeRequest) -> Message:
        """Add a structure. Returns the message to send."""
        number = self._next_id
        self._entries[number] = _Entry(key, Message(id=number, request=request))
        self._sent.add(number)
        self._next_id += 1
        return self._message(number)

    def add_failed(self, key: K, error: FoldmintError) -> None:
        """Add a structure that cannot be sent."""
        self._entries[self._next_id] = _Entry(key)
        self._finish(self._next_id, error)
        self._next_id += 1

    def record_response(self, response: tokenizer_pb2.TokenizeStreamResponse) -> None:
        """Record an answer. Raises ServerError if it answers nothing that was sent."""
        if response.id not in self._sent:
            raise ServerError(f"the server answered structure {response.id} of the stream, which does not wait for it")
        self._stream_retries.record_success()
        self._stalls = 0
        self._sent.remove(response.id)
        result = _result(response, self._unanswered(response.id).request, self._version)
        if isinstance(result, Tokens):
            self._version = self._version.merged(result.version)  # the first answer decides for the whole job
        pause = self._pause_after(self._entries[response.id], result)
        if pause is None:
            self._finish(response.id, result)
        else:
            self._retries[response.id] = self._clock() + pause

    def due_retries(self) -> tuple[float, list[Message]]:
        """Seconds to wait, then messages to send again, of structures that the server rejected.

        Does not wait while the server has other structures to answer: returns the messages due by now.
        """
        horizon = self._clock()
        delay = 0.0
        if self._retries and not self._sent:
            earliest = min(self._retries.values())
            delay = max(0.0, earliest - horizon)
            horizon = max(horizon, earliest)
        due = [number for number, time in self._retries.items() if time <= horizon]
        for number in due:
            del self._retries[number]
        self._sent.update(due)
        return delay, [self._message(number) for number in due]

    def stream_broken(self, error: FoldmintError) -> float:
        """Seconds to wait before another stream is opened. Raises the error if there are no attempts left."""
        pause = self._stream_retries.record_failure(error)
        if pause is None:
            raise error
        return pause

    def timed_out(self) -> None:
        """Give up on what was sent, as no answer came in time. Raises DeadlineExceeded the second time in a row."""
        error = DeadlineExceeded(
            f"no answer within {self._timeout:g} s, with {len(self._sent)} structures to be answered"
        )
        self._stalls += 1
        if self._stalls > 1:
            raise error
        for number in [*self._sent]:
            self._finish(number, DeadlineExceeded(f"no answer within {self._timeout:g} s"))
        self._sent.clear()

    def resend(self) -> list[Message]:
        """Everything unanswered, in the input's order, for a new stream."""
        self._sent.update(self._retries)
        self._retries.clear()
        return [self._message(number) for number in sorted(self._sent)]

    def ready(self) -> Iterator[tuple[K, Result]]:
        """Return results that are there: in the input's order if `ordered`."""
        while self._entries:
            if self._ordered:
                number = next(iter(self._entries))
            elif self._done:
                number = self._done.popleft()
            else:
                return
            entry = self._entries[number]
            if entry.result is None:
                return
            del self._entries[number]
            yield entry.key, entry.result

    def _pause_after(self, entry: _Entry[K], result: Result) -> float | None:
        """Seconds to wait before a structure is sent again; None if its result is final."""
        if not isinstance(result, FoldmintError):
            return None
        if entry.retries is None:
            attempts = self._retry.refused_attempts
            entry.retries = RetryState(self._retry, attempts, _TRANSIENT, clock=self._clock, chance=self._chance)
        return entry.retries.record_failure(result)

    def _finish(self, number: int, result: Result) -> None:
        self._entries[number].result = result
        self._entries[number].message = None
        if not self._ordered:
            self._done.append(number)

    def _message(self, number: int) -> Message:
        """A structure's message, to be sent: of the version that the job has."""
        message = self._unanswered(number)
        message.request.codebook_version = self._version.codebook_version
        return message

    def _unanswered(self, number: int) -> Message:
        message = self._entries[number].message
        if message is None:
            raise AssertionError(f"structure {number} has its answer already")
        return message


def _result(
    response: tokenizer_pb2.TokenizeStreamResponse, request: tokenizer_pb2.TokenizeRequest, version: JobVersion
) -> Result:
    kind = response.WhichOneof("result")
    if kind == "failure":
        return from_failure(response.failure)
    if kind is None:
        return ServerError("the server's answer is empty")
    try:
        return to_tokens(response.response, request, version)
    except (FailedPrecondition, ServerError) as error:
        return error
