"""Who is at the other end of a call: the caller's token, else the address that it comes from."""

import ipaddress
from typing import Any
from urllib.parse import unquote

import grpc

from foldmint_server.security.authorization import CALLER

_IPV6_PREFIX = 64  # one subscriber's network, of which it may take any address


def network_of(peer: str) -> str:
    """The address of a peer, which gRPC writes as `ipv4:ADDRESS:PORT` or `ipv6:%5BADDRESS%5D:PORT`, without the port.

    Of an IPv6 address the /64 network: who has one address of it usually has them all.
    """
    return network_of_host(unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")) or peer


def network_of_host(host: str) -> str:
    """The same of an address alone."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))


def caller_of(context: "grpc.aio.ServicerContext[Any, Any]") -> str:
    """The name of the caller's token; without one, its address."""
    # No token's name holds a colon.
    return CALLER.get().name or f"address:{network_of(context.peer())}"
