"""Unary calls to one of several servers: which is tried first, and which after a failure."""

import itertools
import time
from collections.abc import Sequence

from foldmint_client.addresses import Address
from foldmint_client.connection import Connection
from foldmint_client.errors import DroppedCall, FailedPrecondition, FoldmintError, NotFound, Overloaded, Unavailable
from foldmint_client.transport.retry import Clock, RetryState

# Errors that another server may not meet.
_ELSEWHERE = (Unavailable, Overloaded, FailedPrecondition, NotFound)


class Rotation:
    """The servers of a client, in the order in which calls try them; threads may share it.

    With `round_robin`, each call begins with the next server, with `pick_first` with the first. Servers that could not
    be reached come last for a while.
    """

    def __init__(self, connection: Connection, clock: Clock = time.monotonic) -> None:
        self.addresses: Sequence[Address] = connection.addresses
        self._turns = itertools.cycle(range(len(self.addresses))) if connection.balance == "round_robin" else None
        self._rest, self._clock = connection.retry.maximum_backoff, clock
        self._resting: dict[Address, float] = {}

    def named(self, address: Address) -> Address | None:
        """The server that an error is to name, if there are several."""
        return address if len(self.addresses) > 1 else None

    def order(self) -> list[Address]:
        """The servers for one call."""
        first = 0 if self._turns is None else next(self._turns)
        order = [*self.addresses[first:], *self.addresses[:first]]
        now = self._clock()
        return sorted(order, key=lambda address: self._resting.get(address, now) > now)

    def failed(self, address: Address) -> None:
        """Note that a server could not be reached."""
        self._resting[address] = self._clock() + self._rest


class Failover(RetryState):
    """The attempts of one call: at each server in turn, and then, after a pause, at each again.

    With one server, gRPC retries by itself while it is UNAVAILABLE; what the server rejects for now is retried when it
    says so, what it drops after a pause. seconds: time for all attempts.
    """

    def __init__(self, rotation: Rotation, connection: Connection, seconds: float) -> None:
        retry, several = connection.retry, len(rotation.addresses) > 1
        super().__init__(
            retry,
            retry.attempts if several else retry.refused_attempts,
            (Overloaded, Unavailable) if several else (Overloaded, DroppedCall),
            server_paced=not several,
            seconds=seconds,
        )
        self._rotation = rotation
        self._round = self._untried = rotation.order()

    @property
    def address(self) -> Address:
        """The server of the next attempt."""
        return self._untried[0]

    @property
    def named(self) -> Address | None:
        """The server that an error is to name: the one of the attempt, if there are several."""
        return self._rotation.named(self.address)

    def record_failure(self, error: FoldmintError) -> float | None:
        """Seconds to wait before the next attempt; None if there is none."""
        if isinstance(error, Unavailable):
            self._rotation.failed(self.address)
        if len(self._untried) > 1 and isinstance(error, _ELSEWHERE):
            self._untried = self._untried[1:]
            return 0.0
        self._untried = self._round
        return super().record_failure(error)
