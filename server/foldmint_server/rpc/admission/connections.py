"""A bound on the connections that one peer has open to the gRPC listeners, with calls or without.

gRPC does not report connections, and has no hook to refuse one. But they are descriptors of this process: each look
goes through them, counts the connections of each peer, and shuts down the newest of those with too many, which gRPC
then takes for hung up. Between two looks a peer may have more, up to `grpc.max_allowed_incoming_connections`.
"""

import contextlib
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from foldmint_server.security.networks import network_of_host

log = structlog.get_logger(__name__)
_DESCRIPTORS = next((path for path in (Path("/proc/self/fd"), Path("/dev/fd")) if path.is_dir()), None)

Ends = tuple[int, str, int]
"""Port of the listener, address and port of the peer: what a connection is known by."""


@dataclass(frozen=True)
class Listener:
    """name: `public` or `admin`, for the metrics. port: that it listens on."""

    name: str
    port: int


class ConnectionLimiter:
    """Keeps at most `per_peer` connections of each peer to each listener.

    opened: called with the number of connections that a listener has. closed: called for each that is shut down.
    """

    def __init__(
        self,
        listeners: tuple[Listener, ...],
        per_peer: int,
        opened: Callable[[str, int], object],
        closed: Callable[[], object],
    ) -> None:
        self._listeners, self._per_peer, self._opened, self._closed = listeners, per_peer, opened, closed
        self._since: dict[Ends, int] = {}
        self._looks = 0
        for listener in listeners:
            opened(listener.name, 0)
        if _DESCRIPTORS is None:
            log.warning("the connections of a peer are not bounded: this system does not list a process's descriptors")

    def check(self) -> None:
        """Look once, in a thread."""
        if _DESCRIPTORS is None:
            return
        self._looks += 1
        ports = {one.port for one in self._listeners}
        found = {ends: descriptor for descriptor, ends in _connections(_DESCRIPTORS, ports)}
        self._since = {ends: self._since.get(ends, self._looks) for ends in found}
        by_peer: Mapping[tuple[int, str], list[Ends]] = defaultdict(list)
        for ends in found:
            by_peer[ends[0], network_of_host(ends[1])].append(ends)
        for (port, peer), connections in by_peer.items():
            if len(connections) <= self._per_peer:
                continue
            newest = sorted(connections, key=lambda ends: self._since[ends])[self._per_peer :]
            for ends in newest:
                self._shut_down(found[ends], ends)
            log.warning(
                "connections closed",
                throttle=f"connections {port}",
                peer=peer,
                port=port,
                count=len(newest),
                reason=f"a peer may have {self._per_peer}",
            )
        for listener in self._listeners:
            self._opened(listener.name, sum(ends[0] == listener.port for ends in found))

    def _shut_down(self, descriptor: int, ends: Ends) -> None:
        with _duplicate(descriptor) as connection:
            # gRPC may have closed it meanwhile, and another may have its number.
            if connection is not None and _ends(connection) == ends:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                    self._closed()


def _connections(descriptors: Path, ports: set[int]) -> Iterator[tuple[int, Ends]]:
    """Descriptors of this process that are connections to one of these ports."""
    for name in os.listdir(descriptors):  # noqa: PTH208 (numbers, not paths)
        with _duplicate(int(name)) as connection:
            ends = None if connection is None else _ends(connection)
        if ends is not None and ends[0] in ports:
            yield int(name), ends


@contextlib.contextmanager
def _duplicate(descriptor: int) -> Iterator[socket.socket | None]:
    """A socket of its own for a descriptor that gRPC may close at any time; None if it is not a socket."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        yield None
        return
    try:
        found = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        yield None
        return
    with found:
        yield found


def _ends(connection: socket.socket) -> Ends | None:
    """None for what is not connected, or not by TCP."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        own, peer = connection.getsockname(), connection.getpeername()
    except OSError:
        return None
    return own[1], peer[0], peer[1]
