"""Addresses of servers: a target's parts, the addresses that a host name resolves to, and which are this machine."""

import ipaddress
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote

_SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds", "passthrough")
_LISTS = ("ipv4", "ipv6")  # schemes of gRPC's that take several addresses
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")

# What getaddrinfo returns, as far as it is read: family, and the socket address.
Resolved = Sequence[tuple[int, int, int, str, tuple[object, ...]]]


class Address(NamedTuple):
    """Where a server is.

    target: as gRPC takes it. host: HOST:PORT whose certificate it has, if the target is what this name resolved to.
    """

    target: str
    host: str = ""

    def __str__(self) -> str:
        return f"{self.target.partition(':')[2]} ({self.host})" if self.host else self.target


class HostName(NamedTuple):
    """A name that may resolve to several servers."""

    host: str
    port: int


def split(target: str) -> tuple[Address, ...]:
    """The servers of a target: `a:50051,b:50052` is two.

    What begins with one of gRPC's schemes, such as `dns:` or `unix:`, is gRPC's, commas included, up to the next part
    that begins with a scheme; only `ipv4:` and `ipv6:` are lists by themselves.
    """
    parts: list[str] = []
    for part in target.split(","):
        if parts and _scheme(parts[-1]) and not _scheme(part):
            if _scheme(parts[-1]) in _LISTS:
                parts.append(f"{_scheme(parts[-1])}:{part}")
            else:
                parts[-1] += f",{part}"
        else:
            parts.append(part.strip())
    return tuple(Address(part) for part in dict.fromkeys(parts))


def host_name(address: Address) -> HostName | None:
    """The name that an address has; None if it can be no more than one server, or a proxy is to resolve it."""
    target = address.target
    scheme = _scheme(target)
    if scheme == "dns":
        target = target.removeprefix("dns:").rpartition("/")[2]
    elif scheme:
        return None
    host, colon, port = target.rpartition(":")
    proxied = any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES)
    if not colon or not port.isdecimal() or ":" in host or proxied or _is_loopback_host(host):
        return None
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return HostName(host, int(port))
    return None


def resolved(address: Address, name: HostName, found: Resolved) -> tuple[Address, ...]:
    """An address for each server of a name; the name's own, which gRPC resolves, if there are not several.

    found: by getaddrinfo. Addresses of the first one's family count: others mostly lead to the same servers.
    """
    family = found[0][0] if found else socket.AF_INET
    hosts = dict.fromkeys(str(entry[4][0]) for entry in found if entry[0] == family)
    if len(hosts) < 2:
        return (address,)
    authority = f"{name.host}:{name.port}"
    if family == socket.AF_INET6:
        return tuple(Address(f"ipv6:[{host}]:{name.port}", authority) for host in hosts)
    return tuple(Address(f"ipv4:{host}:{name.port}", authority) for host in hosts)


def is_loopback(target: str) -> bool:
    """Whether all servers of a target can only be this machine: localhost, loopback addresses, or Unix sockets."""
    return all(_is_loopback(address.target) for address in split(target))


def _is_loopback(target: str) -> bool:
    scheme = _scheme(target)
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme in ("dns", "ipv4", "ipv6"):
        rest = target.partition(":")[2]
        target = rest.rpartition("/")[2] if rest.startswith("//") else rest.lstrip("/")
    return _is_loopback_host(_host(unquote(target)))


def _scheme(target: str) -> str:
    scheme, colon, _ = target.partition(":")
    return scheme if colon and scheme in _SCHEMES else ""


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, _, port = address.rpartition(":")
    return host if host and port.isdigit() and ":" not in host else address


def _is_loopback_host(host: str) -> bool:
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may resolve to anything
