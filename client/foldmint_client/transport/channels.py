"""The gRPC channels of a client, one to each server, and the servers that its target's names resolve to."""

import asyncio
import socket
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

import grpc

from foldmint_client.addresses import Address, HostName, Resolved, host_name, resolved
from foldmint_client.connection import Connection

C = TypeVar("C")


class Channels(Generic[C]):
    """The channels of a client, each opened when first used; threads may share them."""

    def __init__(self, connection: Connection, open_channel: Callable[[Connection, Address], C]) -> None:
        self._connection, self._open = connection, open_channel
        self._channels: dict[Address, C] = {}
        self._lock = Lock()

    def get(self, address: Address) -> C:
        """The channel to a server. Raises UnreadableInput."""
        with self._lock:
            if address not in self._channels:
                self._channels[address] = self._open(self._connection, address)
            return self._channels[address]

    @property
    def opened(self) -> list[C]:
        """The channels, to be closed."""
        return [*self._channels.values()]


def open_channel(connection: Connection, address: Address | None = None) -> grpc.Channel:
    """A channel for blocking calls; it connects when first used. address: the target's first by default.

    Raises UnreadableInput.
    """
    address = connection.addresses[0] if address is None else address
    arguments = connection.channel_arguments(address)
    if connection.tls is None:
        return grpc.insecure_channel(address.target, arguments)
    return grpc.secure_channel(address.target, connection.tls.credentials(), arguments)


def open_aio_channel(connection: Connection, address: Address) -> grpc.aio.Channel:
    """A channel of the running event loop. Raises UnreadableInput."""
    arguments = connection.channel_arguments(address)
    if connection.tls is None:
        return grpc.aio.insecure_channel(address.target, arguments)
    return grpc.aio.secure_channel(address.target, connection.tls.credentials(), arguments)


def resolve(connection: Connection) -> list[Address]:
    """The servers of a target: of names that resolve to several addresses, each of them; blocking.

    With `pick_first`, gRPC chooses among the addresses of a name.
    """
    found: dict[Address, None] = {}
    for address in connection.addresses:
        name = host_name(address) if connection.balance == "round_robin" else None
        found |= dict.fromkeys((address,) if name is None else resolved(address, name, _look_up(name)))
    return [*found]


async def resolve_async(connection: Connection) -> list[Address]:
    """The same in a thread, where names have to be looked up."""
    if any(map(host_name, connection.addresses)):
        return await asyncio.to_thread(resolve, connection)
    return resolve(connection)


def _look_up(name: HostName) -> Resolved:
    """What a name resolves to; nothing if it cannot be resolved, as gRPC will say."""
    try:
        return socket.getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
    except OSError:
        return ()
