"""The servers of a job: which of them gets the next structure, and when one that failed is tried again."""

import math
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from foldmint_client.addresses import Address
from foldmint_client.connection import Balance, Retry
from foldmint_client.errors import DeadlineExceeded, FoldmintError, Overloaded, Unavailable
from foldmint_client.transport.retry import RetryState
from foldmint_client.transport.status import named

TRANSIENT = (Overloaded, Unavailable)
_OF_ONE_SERVER = (*TRANSIENT, DeadlineExceeded)  # where there are others, a hung server is one that went
_DECAY = 0.95  # of what is known of a server's rate, with each answer: the last 20 or so count


@dataclass(eq=False)
class Server:
    """One server of a job.

    reached: whether work may be sent. connecting: whether it is being tried. sent: ids that it has to answer. error:
    why it was given up; it is tried again all the same, unless the error is final. resting_until, refusing_until: when
    it may be tried again after a failure, and given work again after it refused some.
    """

    address: Address
    retries: RetryState
    reached: bool
    connecting: bool = False
    sent: set[int] = field(default_factory=set)
    error: FoldmintError | None = None
    final: bool = False
    resting_until: float = -math.inf
    refusing_until: float = -math.inf
    rejections: int = 0  # since the last answer
    last_event: float = -math.inf  # when it answered last, or got work after it had none
    _seconds: float = 0.0  # between answers, and
    _answers: float = 0.0  # how many of them there were; both decay

    @property
    def proven(self) -> bool:
        """Whether it has answered since it was reached."""
        return self._answers > 0

    @property
    def lost(self) -> bool:
        """Whether it was given up, and has nothing to answer since."""
        return self.error is not None and not self.sent

    def send(self, number: int, now: float) -> None:
        """Note that a structure was sent."""
        if not self.sent:
            self.last_event = now
        self.sent.add(number)

    def rejected(self, number: int, until: float) -> None:
        """Note that a structure was not taken: it says nothing of the server's rate, and others get work until then."""
        self.sent.remove(number)
        self.rejections += 1
        self.refusing_until = max(self.refusing_until, until)

    def answered(self, number: int, now: float) -> None:
        """Note that a structure was answered."""
        self.sent.remove(number)
        self._seconds = _DECAY * self._seconds + now - self.last_event
        self._answers = _DECAY * self._answers + 1
        self.last_event, self.error, self.rejections = now, None, 0
        self.retries.record_success()

    def lose(self) -> list[int]:
        """Note that the connection is gone. Returns what is unanswered."""
        lost = sorted(self.sent)
        self.sent.clear()
        self.connecting, self._seconds, self._answers = False, 0.0, 0.0
        return lost

    def expected_seconds(self, now: float) -> float:
        """Time in which one more structure would be answered, at the rate of late; a silence counts as an answer."""
        silence = now - self.last_event if self.sent else 0.0
        return (len(self.sent) + 1) * (self._seconds + silence) / (self._answers + 1)


class ServerPool:
    """The servers of a job, without input or output, shared by both clients.

    With one server, gRPC connects by itself, and its errors are the job's. Of several, each is reached first by a call
    of its own, so that no structure waits for a server that cannot be reached; the job fails when all of them do.
    Structures go to the server that is expected to answer first: one that is slower gets fewer. in_flight: of the job.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        balance: Balance,
        retry: Retry,
        in_flight: int,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._balance, self._retry, self._in_flight, self._timeout = balance, retry, in_flight, timeout
        self._clock, self._chance = clock, chance
        self._leader: Server | None = None
        self._refresh_at = self._refreshed = -math.inf
        self.servers: list[Server] = []
        self._replace(addresses)

    @property
    def several(self) -> bool:
        """Whether there is more than one server."""
        return len(self.servers) > 1

    @property
    def refresh_due(self) -> bool:
        """Whether names are to be resolved now: at the start, and after a server failed."""
        return self._clock() >= self._refresh_at

    def update(self, addresses: Sequence[Address]) -> None:
        """Use these addresses from now on; a server that is gone from them stays as long as it has work."""
        self._refresh_at, self._refreshed = math.inf, self._clock()
        if [server.address for server in self.servers] != [*addresses]:
            self._replace(addresses)

    def choose(self, refused_by: Collection[Server], now: float, *, pinned: bool) -> Server | None:
        """The server for a structure; None if it has to wait for one.

        refused_by: servers that cannot be asked for it. pinned: whether the job's version is known; until then, one
        server gets all, so that all is of one version.
        """
        options = self.eligible(refused_by, now, pinned=pinned)
        for refusing in (False, True):
            group = [server for server in options if (server.refusing_until > now) is refusing]
            usable = [server for server in group if server.reached and server.resting_until <= now]
            if free := [server for server in usable if self._has_room(server)]:
                return min(free, key=lambda server: (server.expected_seconds(now), len(server.sent)))
            if usable or not all(server.lost for server in group):
                return None
        return None

    def eligible(self, refused_by: Collection[Server], now: float, *, pinned: bool) -> list[Server]:
        """The servers that a structure may go to, reached or not."""
        others = [server for server in self.servers if not server.final and server not in refused_by]
        if self._balance == "round_robin" and pinned:
            return others
        leader = self._leader
        if leader not in self.servers or leader is None or leader.final or leader.resting_until > now:
            rested = [server for server in self.servers if not server.final and server.resting_until <= now]
            leader = self._leader = rested[0] if rested else None
        return [leader] if leader in others else others[:1]

    def to_connect(self, wanted: Collection[Server], now: float) -> list[Server]:
        """Servers to reach now, by a call of their own. wanted: that work waits for."""
        candidates = self.servers if self._balance == "round_robin" else wanted
        found = [
            server
            for server in candidates
            if not (server.reached or server.connecting or server.final) and server.resting_until <= now
        ]
        for server in found:
            server.connecting = True
        return found

    def failed(self, server: Server, error: FoldmintError) -> None:
        """Let a server rest after a failure. Raises the error if no other server is left."""
        error = named(error, server.address) if self.several else error
        pause = server.retries.record_failure(error)
        if pause is None:
            server.error = error
            server.final = not isinstance(error, _OF_ONE_SERVER if self.several else TRANSIENT)
            pause = self._retry.maximum_backoff
        now = self._clock()
        server.reached = not self.several
        server.resting_until = now + pause
        self._refresh_at = max(now, self._refreshed + self._retry.maximum_backoff)
        if all(other.lost for other in self.servers):
            raise error

    def rejected(self, server: Server, number: int, pause: float) -> None:
        """Note that a server did not take a structure, which is sent again after a pause; the server gets none for as
        long, and for longer if it goes on like this.
        """
        backoff = self._retry.backoff(server.rejections + 1, self._chance())
        server.rejected(number, self._clock() + max(pause, backoff))

    def _has_room(self, server: Server) -> bool:
        """A server that has yet to answer gets its share of the window, and no more."""
        share = max(1, self._in_flight // len(self.servers))
        return server.proven or not self.several or len(server.sent) < share

    def _replace(self, addresses: Sequence[Address]) -> None:
        known = {server.address: server for server in self.servers}
        several = len(addresses) > 1
        servers = [known.get(address) or self._new(address, several=several) for address in addresses]
        self.servers = servers + [server for server in known.values() if server.sent and server not in servers]

    def _new(self, address: Address, *, several: bool) -> Server:
        retries = RetryState(
            self._retry,
            self._retry.attempts,
            _OF_ONE_SERVER if several else TRANSIENT,
            longest_pause=self._timeout,
            clock=self._clock,
            chance=self._chance,
        )
        return Server(address, retries, reached=not several)
