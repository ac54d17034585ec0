"""Whether servers serve what their store says: they are asked until they do."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from math import inf
from typing import NamedTuple, Unpack

from foldmint_client.admin import CodebookAdmin, StoreState
from foldmint_client.cli.diagnosis import connection_fault
from foldmint_client.connection import ConnectionOptions
from foldmint_client.errors import FoldmintError, PermissionDenied, Unauthenticated
from foldmint_maintenance.errors import ActivationFailed
from foldmint_tokenizer.store.control import Control, hash_of

# Seconds between two rounds of questions, and for each answer.
_PAUSE, _ANSWER = 0.2, 5.0


class Following(NamedTuple):
    """A server that serves what its store says. address: of its admin listener. canary: whether it serves that."""

    address: str
    name: str
    version: str
    canary: bool


class _Missing(NamedTuple):
    """Why a server does not follow.

    final_after: seconds for which it gives this reason until it is not asked again. error: of a call that failed.
    """

    reason: str
    final_after: float
    error: FoldmintError | None = None


def wait_for_servers(
    addresses: Sequence[str], control: Control, seconds: float, **options: Unpack[ConnectionOptions]
) -> list[Following]:
    """Wait until all servers have read from their store what it says, and serve it; returned in their order.

    addresses: HOST:PORT of their admin listeners; tokens need the scope `read`. control: what the store says. seconds:
    to wait for, at most. options: of the connections.

    Raises ActivationFailed if some do not follow; its message gives the reason of each.
    """
    end = time.monotonic() + seconds
    found: dict[str, Following] = {}
    missing: dict[str, _Missing] = {}
    since: dict[tuple[str, str], float] = {}

    def final(address: str) -> bool:
        one = missing[address]
        return time.monotonic() - since[address, one.reason] >= one.final_after

    with ExitStack() as connections:
        admins = {address: connections.enter_context(CodebookAdmin(address, **options)) for address in addresses}
        while True:
            for address, admin in admins.items():
                if address in found or (address in missing and final(address)):
                    continue
                answer = _asked(address, admin, control, min(_ANSWER, max(0.1, end - time.monotonic())))
                if isinstance(answer, Following):
                    found[address] = answer
                    missing.pop(address, None)
                else:
                    missing[address] = answer
                    since.setdefault((address, answer.reason), time.monotonic())
            if all(final(address) for address in missing) or time.monotonic() >= end:
                break
            time.sleep(_PAUSE)
    if missing:
        reasons = "; ".join(f"{address}: {_told(one, address, options)}" for address, one in missing.items())
        raise ActivationFailed(f"{len(missing)} of {len(admins)} servers do not follow the store: {reasons}")
    return [found[address] for address in admins]


def smallest_share(servers: Sequence[Following]) -> tuple[float, Following]:
    """The server that the smallest share includes, and the place of its name: a share above that includes it."""
    first = min(servers, key=lambda server: hash_of(server.name))
    return hash_of(first.name), first


def _asked(address: str, admin: CodebookAdmin, control: Control, seconds: float) -> Following | _Missing:
    try:
        state = admin.usage(timeout=seconds).store
    except FoldmintError as error:
        final_after = 0.0 if isinstance(error, Unauthenticated | PermissionDenied) else inf
        return _Missing("it did not report what it serves", final_after, error)
    if state is None:
        return _Missing("its release does not report what its store says", 0.0)
    if (state.active, state.canary, state.canary_share) == _reported(control):
        if state.follows:
            return Following(address, state.server_name, state.serving, canary=state.serving != state.active)
        # A problem may be of the reading before this change.
        final_after = max(_ANSWER, 2 * state.poll_seconds) if state.problem else inf
        return _Missing(f"{state.problem or 'it is at it'}; it serves {state.serving}", final_after)
    return _behind(state)


def _told(missing: _Missing, address: str, options: ConnectionOptions) -> str:
    if missing.error is None:
        return missing.reason
    return f"{missing.reason}: {connection_fault(missing.error, address, options.get('tls'), '--admin-listen')}"


def _behind(state: StoreState) -> _Missing:
    """Of a server that has not read what the store says."""
    if not state.poll_seconds:
        return _Missing(f"it reads its store at its start alone (--poll-seconds 0); it serves {state.serving}", 0.0)
    if state.problem:
        return _Missing(f"{state.problem}; it serves {state.serving}", inf)
    canary = "" if state.canary is None else f" and CANARY {state.canary}"
    return _Missing(f"in its store, ACTIVE is {state.active}{canary}: another store, or it lags", inf)


def _reported(control: Control) -> tuple[str, str | None, float | None]:
    return (control.active, *(control.canary or (None, None)))
