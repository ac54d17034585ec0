"""The network that an address belongs to, by which limits count those who have no token."""

import ipaddress

_IPV6_PREFIX = 64  # one subscriber's network, of which it may take any address


def network_of_host(host: str) -> str:
    """An IPv4 address as it is, the /64 network of an IPv6 address: who has one address of it usually has them all.

    Returns the host unchanged if it is not an address.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
