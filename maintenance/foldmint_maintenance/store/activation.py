"""Which version the servers of a store serve: activated, rolled back, put on trial; under the store's lock.

Each function returns what the store says then, and raises StoreLocked if another run holds the lock for longer than
it is waited for, LockLost, and ModelError, with the reason, if a version or what the store says cannot be used.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from foldmint_tokenizer.store.control import Control
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.model_store import Store

LOCK_SECONDS = 10.0
"""How long another change is waited for. A change takes less; a repair, far more."""


def activate(store: Store, version: str, *, wait: float = LOCK_SECONDS) -> Control:
    """Make a version the active one. A canary of it ends; another goes on. wait: seconds for the lock."""
    with _locked(store, wait):
        store.activate(version)
    return store.control()


def roll_back(store: Store, from_version: str = "", *, wait: float = LOCK_SECONDS) -> Control:
    """Make the version active that was active before.

    from_version: that must be active now, or ModelError is raised; empty: any.
    """
    with _locked(store, wait):
        store.roll_back(from_version)
    return store.control()


def start_canary(store: Store, version: str, share: float, *, wait: float = LOCK_SECONDS) -> Control:
    """Let a share of the servers, above 0 and at most 1, serve a version; it takes the place of another canary."""
    with _locked(store, wait):
        store.start_canary(version, share)
    return store.control()


def end_canary(store: Store, *, wait: float = LOCK_SECONDS) -> Control:
    """Let all servers serve the active version."""
    with _locked(store, wait):
        store.end_canary()
    return store.control()


@contextmanager
def _locked(store: Store, wait: float) -> Iterator[None]:
    store.about()  # only a store gets a lock
    with StoreLock(store.files, wait=wait) as lock:
        lock.check()
        yield
