"""A version handed to running servers: each swaps and is checked by the canary; if one fails, all go back."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Unpack

from foldmint_client import Backbone, Client, FailedPrecondition, FoldmintError, PermissionDenied, Unauthenticated
from foldmint_client.admin import CodebookAdmin
from foldmint_client.connection import ConnectionOptions
from foldmint_maintenance.errors import ActivationFailed
from foldmint_maintenance.repair.canary import Canary


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


def _nothing(outcome: ServerOutcome) -> None:
    """Whoever wants no outcomes."""


def activate(
    addresses: Sequence[str],
    version: str,
    canary: Canary | None,
    tell: Callable[[str], None],
    outcome: Callable[[ServerOutcome], None] = _nothing,
    **options: Unpack[ConnectionOptions],
) -> list[Swapped]:
    """Let all servers serve a version, one after another; addresses: their admin listeners; options: of connections.

    outcome: told what became of each server, of one that is brought back again.

    Raises ActivationFailed, after those that had swapped were brought back, if one refuses, cannot be reached, or gives
    other tokens for the canary; its message tells of servers that could not be brought back either.
    """
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
            tell(f"{address} serves codebook {version}, and served {previous}")
            _check(address, version, canary, options)
            outcome(ServerOutcome(address, "swapped", version, previous))
        except (FoldmintError, ActivationFailed) as error:
            outcome(ServerOutcome(address, "failed", version, swapped[-1].previous, str(error)))
            left = _back(swapped, version, tell, outcome, options)
            reason = f"{address}: {error}; all servers are back on what they served"
            if left:
                reason = f"{address}: {error}; these could not be brought back: {', '.join(left)}"
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


def _back(
    swapped: Sequence[Swapped],
    version: str,
    tell: Callable[[str], None],
    outcome: Callable[[ServerOutcome], None],
    options: ConnectionOptions,
) -> list[str]:
    """Roll servers back, the last first; returns those that could not be."""
    left = []
    failed = swapped[-1].address
    for address, previous in reversed(swapped):
        if previous == version:
            continue
        try:
            with CodebookAdmin(address, **options) as admin:
                admin.rollback(version)
            tell(f"{address} is back on what it served")
            if address != failed:  # of that one, the reason stands
                outcome(ServerOutcome(address, "brought back", version, previous))
        except (FailedPrecondition, Unauthenticated, PermissionDenied) as error:
            # Who never answered may never have swapped; who does not let us in has not.
            if previous is not None:
                left.append(f"{address} ({error})")
                outcome(ServerOutcome(address, "not brought back", version, previous, str(error)))
        except FoldmintError as error:
            left.append(f"{address} ({error})")
            outcome(ServerOutcome(address, "not brought back", version, previous, str(error)))
    return left
