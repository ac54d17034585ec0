"""The commands `foldmint-maintenance codebooks activate|rollback|canary`: which version servers serve.

They write to the store, which servers follow, so that a restart changes nothing.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from foldmint_client.cli.credentials import NO_CREDENTIALS, Credentials, with_credentials
from foldmint_maintenance.cli.common import StoreOption, changes, checked, server_addresses, usage_errors

if TYPE_CHECKING:
    from foldmint_client.connection import ConnectionOptions
    from foldmint_tokenizer.store.control import Control

Servers = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT,…", help="Admin listeners of servers; wait until all of them follow the store."),
]
Timeout = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for --servers, at most.")]
_SECONDS = 60.0


@with_credentials
def activate(
    version: Annotated[str, typer.Argument(help="A version of the store.")],
    store: StoreOption,
    servers: Servers = None,
    timeout: Timeout = _SECONDS,
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Make a version the active one of the store: its servers follow. A canary of that version ends."""
    from foldmint_maintenance.store import activation
    from foldmint_tokenizer.store.model_store import Store

    addresses, options = _connections(servers, credentials)
    with changes():
        control = activation.activate(Store(store), version)
        _print_control(control)
        _wait(addresses, control, timeout, options)


@with_credentials
def rollback(
    store: StoreOption,
    from_version: Annotated[
        str, typer.Option("--from", metavar="VERSION", help="Only if this version is active, so that two go back once.")
    ] = "",
    servers: Servers = None,
    timeout: Timeout = _SECONDS,
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Make the version active again that was active before; once more, the one before that."""
    from foldmint_maintenance.store import activation
    from foldmint_tokenizer.store.model_store import Store

    addresses, options = _connections(servers, credentials)
    with changes():
        control = activation.roll_back(Store(store), from_version)
        _print_control(control)
        _wait(addresses, control, timeout, options)


@with_credentials
def canary(
    store: StoreOption,
    version: Annotated[str | None, typer.Argument(help="The version to try.")] = None,
    share: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Of the servers that serve it by default: 10%, or 0.1.")
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="End the canary: all servers serve the active version.")] = False,
    servers: Servers = None,
    timeout: Timeout = _SECONDS,
    credentials: Credentials = NO_CREDENTIALS,
) -> None:
    """Let a share of the servers serve a version by default, or end that.

    A server belongs to the share if the hash of its name (--server-name of the server) is below it, so that a larger
    share adds servers and exchanges none. Requests that name a version get that one. `activate` makes the canary the
    active version.
    """
    from foldmint_maintenance.store import activation
    from foldmint_tokenizer.store.model_store import Store

    if end == (version is not None) or end == (share is not None):
        raise typer.BadParameter("give a VERSION and --share to begin, or --end alone")
    with usage_errors():
        part = None if share is None else _share(share)
    addresses, options = _connections(servers, credentials)
    with changes():
        opened = Store(store)
        if version is None or part is None:
            control = activation.end_canary(opened)
        else:
            control = activation.start_canary(opened, version, part)
        _print_control(control)
        _wait(addresses, control, timeout, options)


def _connections(servers: str | None, credentials: Credentials) -> "tuple[tuple[str, ...], ConnectionOptions]":
    """Addresses and options of servers, checked before anything is changed."""
    with usage_errors():
        addresses, options = server_addresses(servers), credentials.read()
        checked(options, *addresses)
    return addresses, options


def _share(text: str) -> float:
    """A share of 10% or 0.1. Raises ValueError if it is not above 0 and at most 1."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"--share must be above 0 and at most 100%, such as 10% or 0.1, not {text!r}")
    return share


def _print_control(control: "Control") -> None:
    typer.echo(f"codebook {control.active} is active in the store")
    if control.canary is not None:
        typer.echo(f"codebook {control.canary.version} is the canary of {control.canary.share:.4g} of the servers")


def _wait(addresses: tuple[str, ...], control: "Control", seconds: float, options: "ConnectionOptions") -> None:
    from foldmint_maintenance.store.servers import smallest_share, wait_for_servers

    if not addresses:
        return
    found = wait_for_servers(addresses, control, seconds, **options)
    for server in found:
        what = " as a canary" if server.canary else ""
        typer.echo(f"{server.address} ({server.name}) serves codebook {server.version}{what}")
    if control.canary is not None and not any(server.canary for server in found):
        least, first = smallest_share(found)
        typer.echo(f"none of them belongs to the share: the first to do so, {first.name}, does above {least:.2%}")
