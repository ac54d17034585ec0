"""Activation of a version in the store and on its servers, which the canary checks; if one fails, all go back."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Unpack

from foldmint_client import Backbone, Client, FailedPrecondition, FoldmintError, PermissionDenied, Unauthenticated
from foldmint_client.admin import CodebookAdmin
from foldmint_client.connection import ConnectionOptions
from foldmint_maintenance.errors import ActivationFailed
from foldmint_maintenance.repair.canary import Canary
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.model_store import Store


class Swapped(NamedTuple):
    """A server's admin listener, and the version that it served before; None if it did not answer."""

    address: str
    previous: str | None


class ServerOutcome(NamedTuple):
    """What became of a server in a swap.

    outcome: `swapped`, `failed`, `brought back`, `not brought back`, or `not asked`. version: what it was asked to
    serve. previous: what it served before, None if not known. reason: why it failed, empty if it did not.
    """

    address: str
    outcome: str
    version: str
    previous: str | None = None
    reason: str = ""


def _ignore(outcome: ServerOutcome) -> None:
    """Ignore an outcome."""


def activate(
    store: Store,
    lock: StoreLock,
    addresses: Sequence[str],
    version: str,
    canary: Canary | None,
    log: Callable[[str], None],
    outcome: Callable[[ServerOutcome], None] = _ignore,
    **options: Unpack[ConnectionOptions],
) -> list[Swapped]:
    """Make a version the active one of a store, and see that its servers serve it, one after another.

    lock: the store's, held. addresses: the servers' admin listeners; they serve at once what their store says, and
    servers that are not named find it there by themselves. outcome: called with what became of each server, again
    for one that is brought back. options: of the connections.

    Raises ActivationFailed, after the store and those that had swapped were brought back, if a server refuses, cannot
    be reached, or gives other tokens for the canary; its message names servers that could not be brought back
    either. Raises ModelError if the version cannot be used, LockLost.
    """
    before = store.active()
    lock.check()
    store.activate(version)
    log(f"codebook {version} is active in the store")
    swapped: list[Swapped] = []
    for address in addresses:
        outcome(ServerOutcome(address, "not asked", version))
    for address in addresses:
        # Before it is asked: an answer that was lost may have been a swap.
        swapped.append(Swapped(address, None))
        try:
            with CodebookAdmin(address, **options) as admin:
                previous = admin.activate(version).previous_version
            swapped[-1] = Swapped(address, previous)
            log(f"{address} serves codebook {version}, and served {previous}")
            _check(address, version, canary, options)
            outcome(ServerOutcome(address, "swapped", version, previous))
        except (FoldmintError, ActivationFailed) as error:
            outcome(ServerOutcome(address, "failed", version, swapped[-1].previous, str(error)))
            lock.check()
            if before != version:
                store.roll_back(version)
            left = _back(swapped, before, log, partial(_note_back, version, outcome), options)
            reason = f"{address}: {error}; the store and all servers are back on codebook {before}"
            if left:
                reason = f"{address}: {error}; the store is back on codebook {before}, and not: {', '.join(left)}"
            raise ActivationFailed(reason) from error
    return swapped


def _check(address: str, version: str, canary: Canary | None, options: ConnectionOptions) -> None:
    """Raise ActivationFailed if the server's tokens of the canary are not those of its manifest."""
    if canary is None:
        return
    own = canary.backbone
    sent = Backbone(own.coordinates, chain=own.chain, sequence=own.sequence, residue_index=own.residue_index)
    with Client(address, **options) as client:
        answer = client.tokenize(sent)
    if answer.codebook_version != version:
        raise ActivationFailed(f"it answers by codebook {answer.codebook_version}, not {version}")
    if tuple(int(token) for token in answer.chains[0].tokens) != canary.tokens:
        raise ActivationFailed("its tokens of the canary are not those that the manifest holds")


def _note_back(
    version: str,
    outcome: Callable[[ServerOutcome], None],
    address: str,
    what: str,
    previous: str | None,
    reason: str,
) -> None:
    """Report a server that was asked to serve a version, and then to go back."""
    outcome(ServerOutcome(address, what, version, previous, reason))


def _back(
    swapped: Sequence[Swapped],
    version: str,
    log: Callable[[str], None],
    outcome: Callable[[str, str, str | None, str], None],
    options: ConnectionOptions,
) -> list[str]:
    """Let servers serve the version that is active in the store again, the last first; returns those that do not."""
    left = []
    failed = swapped[-1].address
    for address, previous in reversed(swapped):
        try:
            with CodebookAdmin(address, **options) as admin:
                admin.activate(version)
            log(f"{address} is back on codebook {version}")
            if address != failed:  # of that one, the reason stands
                outcome(address, "brought back", previous, "")
        except (FailedPrecondition, Unauthenticated, PermissionDenied) as error:
            # A server that never answered may never have swapped; one that rejects the call has not.
            if previous is not None:
                left.append(f"{address} ({error})")
                outcome(address, "not brought back", previous, str(error))
        except FoldmintError as error:
            left.append(f"{address} ({error})")
            outcome(address, "not brought back", previous, str(error))
    return left
