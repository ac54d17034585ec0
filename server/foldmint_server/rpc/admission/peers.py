"""Who is at the other end of a call: the caller's token, else the address that it comes from."""

from typing import Any
from urllib.parse import unquote

import grpc

from foldmint_server.security.authorization import CALLER
from foldmint_server.security.networks import network_of_host


def network_of(peer: str) -> str:
    """The address of a peer, which gRPC writes as `ipv4:ADDRESS:PORT` or `ipv6:%5BADDRESS%5D:PORT`, without the port.

    Of an IPv6 address the /64 network.
    """
    return network_of_host(unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")) or peer


def caller_of(context: "grpc.aio.ServicerContext[Any, Any]") -> str:
    """The name of the caller's token; without one, its address."""
    # No token's name holds a colon.
    return CALLER.get().name or f"address:{network_of(context.peer())}"
