"""The structures of a job that are in flight: what to send, what to send again, which results to return."""

import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from foldmint.v1 import tokenizer_pb2
from foldmint_client.addresses import Address
from foldmint_client.connection import Balance, Retry
from foldmint_client.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    FoldmintError,
    InvalidOptions,
    NotFound,
    ServerError,
)
from foldmint_client.models.job_version import JobVersion
from foldmint_client.models.responses import Tokens, to_tokens
from foldmint_client.transport.retry import RetryState
from foldmint_client.transport.server_pool import TRANSIENT, Server, ServerPool
from foldmint_client.transport.status import from_failure, named

K = TypeVar("K")
Message = tokenizer_pb2.TokenizeStreamRequest
Result = Tokens | FoldmintError


class Wait(NamedTuple):
    """How long to wait. at_work: whether a server is to answer; otherwise there is nothing to wait for but the time."""

    seconds: float
    at_work: bool


@dataclass
class _Entry(Generic[K]):
    key: K
    message: Message | None = None  # until it is answered
    retries: RetryState | None = None  # from the first rejection on
    refused_by: set[Server] = field(default_factory=set)  # servers that lack what it needs
    refusal: FoldmintError | None = None  # of the last of them
    stalled: bool = False  # whether a server has answered nothing in time
    result: Result | None = None


class InFlightTracker(Generic[K]):
    """Bookkeeping of a job, without input or output, shared by both clients.

    An entry exists from the moment its structure is pulled from the caller's input until its result is returned; there
    are never more than `in_flight`, whatever the number of servers. Its message is kept until it is answered, so that
    it can be sent again, to any server. Answers are matched by id: nothing is lost, and nothing is returned twice.
    timeout: the longest wait for an answer, in seconds. version: of all results, as far as it is known; the first
    result decides on the rest.
    """

    def __init__(
        self,
        in_flight: int,
        ordered: bool,
        retry: Retry,
        timeout: float,
        version: JobVersion,
        addresses: Sequence[Address],
        balance: Balance,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if in_flight < 1:
            raise InvalidOptions(f"in_flight is 1 or more, not {in_flight}", "in_flight")
        self._in_flight, self._ordered, self._retry = in_flight, ordered, retry
        self._timeout, self._clock, self._chance = timeout, clock, chance
        self._version = version
        self._entries: dict[int, _Entry[K]] = {}  # by id, in the input's order
        self._done: deque[int] = deque()  # ids with results, in the order of arrival; unused if `ordered`
        self._waiting: list[int] = []  # ids to be sent
        self._retries: dict[int, float] = {}  # ids to send again, and when
        self._next_id = 0
        self._stalls = 0  # since the last answer
        self._attended = clock()  # since when answers are waited for
        self._slept_until = -math.inf
        self.pool = ServerPool(addresses, balance, retry, in_flight, timeout, self._now, chance)

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
        return bool(self._waiting or self._retries or any(server.sent for server in self.pool.servers))

    def add(self, key: K, request: tokenizer_pb2.TokenizeRequest) -> None:
        """Add a structure, to be sent."""
        self._entries[self._next_id] = _Entry(key, Message(id=self._next_id, request=request))
        self._waiting.append(self._next_id)
        self._next_id += 1

    def add_failed(self, key: K, error: FoldmintError) -> None:
        """Add a structure that cannot be sent."""
        self._entries[self._next_id] = _Entry(key)
        self._finish(self._next_id, error)
        self._next_id += 1

    def to_connect(self) -> list[Server]:
        """Servers to reach now, by a call of GetModel."""
        now = self._now()
        wanted = {
            server
            for number in self._waiting
            for server in self.pool.eligible(self._entries[number].refused_by, now, pinned=self._pinned)
        }
        return self.pool.to_connect(wanted, now)

    def to_send(self) -> Iterator[tuple[Server, Message]]:
        """Messages to send now, and to which server, in the input's order."""
        now = self._now()
        for number in [number for number, due in self._retries.items() if due <= now]:
            del self._retries[number]
            self._waiting.append(number)
        waiting, self._waiting = sorted(self._waiting), []
        for number in waiting:
            entry = self._entries[number]
            if entry.refusal is not None and not self._others_left(entry):
                self._finish(number, entry.refusal)
            elif (server := self.pool.choose(entry.refused_by, now, pinned=self._pinned)) is None:
                self._waiting.append(number)
            else:
                server.send(number, now)
                message = self._unanswered(number)
                message.request.codebook_version = self._version.codebook_version
                yield server, message

    def wait(self) -> Wait:
        """How long to wait for an event; without a server at work, how long to sleep."""
        now = self._now()
        servers = self.pool.servers
        dues = [*self._retries.values()]
        if self._waiting:
            dues += [server.resting_until for server in servers if not server.final and server.resting_until > now]
        if not any(server.sent or server.connecting for server in servers):
            self._slept_until = max(now, min(dues, default=now))
            return Wait(self._slept_until - now, at_work=False)
        dues += [self._silent_at(server) for server in servers if server.sent]
        return Wait(max(0.0, min(dues, default=now + self._timeout) - now), at_work=True)

    def attend(self) -> None:
        """Start waiting for answers now: time that the caller spends on results does not count as the server's."""
        self._attended = self._now()

    def record_reached(self, server: Server, model: tokenizer_pb2.GetModelResponse) -> None:
        """Record that a server can be given work. Raises FoldmintError if it serves another model and no other does."""
        server.connecting = False
        served = JobVersion(encoder_digest=model.encoder_digest, model=model.model)
        if difference := self._version.difference(served):
            self.record_broken(server, FailedPrecondition(f"the server has {difference}"))
        else:
            server.reached = True

    def record_response(self, server: Server, response: tokenizer_pb2.TokenizeStreamResponse) -> None:
        """Record an answer. Raises ServerError if it answers nothing that was sent."""
        number = response.id
        if number not in server.sent:
            raise ServerError(f"the server answered structure {number} of the stream, which does not wait for it")
        now = self._now()
        self._stalls = 0
        entry = self._entries[number]
        result = _result(response, self._unanswered(number).request, self._version)
        if isinstance(result, (FailedPrecondition, NotFound)) and self.pool.several:
            self.pool.rejected(server, number, self._retry.maximum_backoff)
            entry.refused_by.add(server)
            entry.refusal = named(result, server.address)
            self._waiting.append(number)
        elif (pause := self._pause_after(entry, result)) is not None:
            self.pool.rejected(server, number, pause)
            self._retries[number] = now + pause
        else:
            server.answered(number, now)
            self._finish(number, result)
            if isinstance(result, Tokens):
                self._version = self._version.merged(result.version)

    def record_broken(self, server: Server, error: FoldmintError) -> None:
        """Record that a server cannot be reached, or its stream broke: what it had goes to another, or to it again.

        Raises the error if no server is left.
        """
        for number in server.lose():
            self._waiting.append(number)
        self.pool.failed(server, error)

    def silent(self) -> list[Server]:
        """Give up on what servers had that answered nothing in time. Returns the servers; their streams are to end.

        Where there are others, a structure gets a second chance there. Raises DeadlineExceeded after more timeouts in a
        row than there are servers.
        """
        now = self._now()
        found = [server for server in self.pool.servers if server.sent and self._silent_at(server) <= now]
        for server in found:
            lost = server.lose()
            error = DeadlineExceeded(
                f"no answer within {self._timeout:g} s, with {len(lost)} structures to be answered"
            )
            self._stalls += 1
            if self._stalls > len(self.pool.servers):
                raise error
            for number in lost:
                entry = self._entries[number]
                if self.pool.several and not entry.stalled:
                    entry.stalled = True
                    self._waiting.append(number)
                else:
                    self._finish(number, DeadlineExceeded(f"no answer within {self._timeout:g} s"))
            if self.pool.several:
                self.pool.failed(server, error)
        return found

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

    @property
    def _pinned(self) -> bool:
        return bool(self._version.codebook_version)

    def _now(self) -> float:
        """The time; after a sleep, no earlier than its end was to be."""
        return max(self._clock(), self._slept_until)

    def _silent_at(self, server: Server) -> float:
        return max(server.last_event, self._attended) + self._timeout

    def _others_left(self, entry: _Entry[K]) -> bool:
        """Whether there is a server that has not refused a structure, and may come to answer it."""
        return any(not server.lost and server not in entry.refused_by for server in self.pool.servers)

    def _pause_after(self, entry: _Entry[K], result: Result) -> float | None:
        """Seconds to wait before a structure is sent again; None if its result is final."""
        if not isinstance(result, FoldmintError):
            return None
        if entry.retries is None:
            attempts = self._retry.refused_attempts
            entry.retries = RetryState(self._retry, attempts, TRANSIENT, clock=self._now, chance=self._chance)
        return entry.retries.record_failure(result)

    def _finish(self, number: int, result: Result) -> None:
        self._entries[number].result = result
        self._entries[number].message = None
        if not self._ordered:
            self._done.append(number)

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
