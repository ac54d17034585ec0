"""What a target names: one server, a list, or something that gRPC alone understands."""

import socket

import pytest

from foldmint_client import Client, CodebookAdmin, InvalidOptions
from foldmint_client.addresses import Address, host_name, resolved, split
from foldmint_client.connection import Connection


@pytest.mark.parametrize(
    ("target", "servers"),
    [
        ("localhost:50051", ["localhost:50051"]),
        ("a:1,b:2", ["a:1", "b:2"]),
        ("a:1, b:2,a:1", ["a:1", "b:2"]),
        ("[::1]:1,b:2", ["[::1]:1", "b:2"]),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", ["ipv4:10.0.0.1:1", "ipv4:10.0.0.2:2"]),
        ("dns:///a:1,dns:b:2", ["dns:///a:1", "dns:b:2"]),
        ("unix:/run/a,b.sock", ["unix:/run/a,b.sock"]),
        ("unix:/run/a.sock,unix:/run/b.sock", ["unix:/run/a.sock", "unix:/run/b.sock"]),
    ],
)
def test_the_servers_of_a_target(target: str, servers: list[str]) -> None:
    assert [address.target for address in split(target)] == servers
    assert Connection(target).addresses == split(target)


@pytest.mark.parametrize("target", ["", ",", "a:1,", "a:1,,b:1", "a:1,http://b:2"])
def test_invalid_targets(target: str) -> None:
    with pytest.raises(InvalidOptions, match="target is"):
        Client(target)


def test_a_token_goes_to_no_server_of_a_list_in_the_clear() -> None:
    with pytest.raises(InvalidOptions, match="in the clear"):
        Connection("localhost:1,example.org:1", token="s3cret")  # noqa: S106


def test_other_invalid_options() -> None:
    with pytest.raises(InvalidOptions, match="balance is round_robin or pick_first"):
        Client("a:1", balance="random")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptions, match="one server"):
        CodebookAdmin("a:1,b:1")


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("foldmint:50051", ("foldmint", 50051)),
        ("dns:foldmint:50051", ("foldmint", 50051)),
        ("dns:///foldmint:50051", ("foldmint", 50051)),
        ("localhost:50051", None),
        ("10.0.0.1:50051", None),
        ("[2001:db8::1]:50051", None),
        ("unix:/run/foldmint.sock", None),
        ("ipv4:10.0.0.1:50051", None),
    ],
)
def test_what_may_be_several_servers(
    target: str, name: tuple[str, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    assert host_name(Address(target)) == name
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    assert host_name(Address(target)) is None


def test_addresses_of_a_name() -> None:
    address = Address("foldmint:50051")
    name = host_name(address)
    assert name is not None
    four = [(socket.AF_INET, 1, 6, "", (f"10.0.0.{number}", 50051)) for number in (1, 2, 1)]
    six = [(socket.AF_INET6, 1, 6, "", (f"2001:db8::{number}", 50051, 0, 0)) for number in (1, 2)]
    expected = ("ipv4:10.0.0.1:50051", "ipv4:10.0.0.2:50051")
    assert [one.target for one in resolved(address, name, [*four, *six])] == [*expected]
    assert str(resolved(address, name, four)[0]) == "10.0.0.1:50051 (foldmint:50051)"
    assert resolved(address, name, six)[1].target == "ipv6:[2001:db8::2]:50051"
    # One server, or none that is known, is for gRPC to resolve.
    assert resolved(address, name, four[:1]) == resolved(address, name, []) == (address,)
