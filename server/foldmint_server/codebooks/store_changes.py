"""What a server reads of its store's ACTIVE and CANARY, and how it changes them: blocking, for a thread."""

from typing import NamedTuple

from foldmint_server.codebooks.manager import unreachable
from foldmint_server.errors import CodebookRejected
from foldmint_tokenizer import ModelError
from foldmint_tokenizer.store.control import Control
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.model_store import Store

# Seconds that a call waits for another change of the store: longer than one takes, shorter than callers' patience.
_LOCK_SECONDS = 10.0


class StoreReading(NamedTuple):
    """What a store says. rollback_target: the version that was active before; None if there was none."""

    control: Control
    rollback_target: str | None


class StoreChanges:
    """Reads and changes what a store says. All methods raise CodebookRejected, with the reason."""

    def __init__(self, store: Store, server: str) -> None:
        """server: the server's name, which decides whether it serves a canary."""
        self._store, self._server = store, server

    def read(self) -> StoreReading:
        """What the store says now."""
        try:
            control = self._store.control()
        except ModelError as error:
            raise CodebookRejected(str(error), unreachable=unreachable(error) or self._is_gone()) from error
        try:
            history = self._store.history()
        except ModelError:
            history = []  # needed for a rollback alone, which says so
        return StoreReading(control, history[-2] if len(history) > 1 else None)

    def rollback_target(self, from_version: str) -> tuple[str, str]:
        """The active version, and the one that a rollback activates.

        Raises CodebookRejected, too, if from_version is neither empty nor active, or if none was active before.
        """
        try:
            return self._store.rollback_target(from_version)
        except ModelError as error:
            raise CodebookRejected(str(error)) from error

    def activate(self, version: str) -> StoreReading:
        """Make a version the active one, if it is not; without a write where it is."""
        if not self._is_active(version):
            self._change(version, from_version=None)
        else:
            self._refuse_canary(version)
        return self.read()

    def roll_back(self, from_version: str, version: str) -> StoreReading:
        """Make the version active that was active before from_version, which must be active now."""
        self._change(version, from_version=from_version)
        return self.read()

    def _change(self, version: str, from_version: str | None) -> None:
        """Activate a version, or roll back to it if from_version is given, under the lock."""
        self._refuse_canary(version)
        try:
            self._store.about()  # a lock makes a folder of what is gone
        except ModelError as error:
            raise CodebookRejected(str(error), unreachable=unreachable(error)) from error
        try:
            with StoreLock(self._store.files, wait=_LOCK_SECONDS) as lock:
                self._refuse_canary(version)
                lock.check()
                if from_version is None:
                    self._store.activate(version)
                else:
                    self._store.roll_back(from_version)
        except ModelError as error:
            if isinstance(error.__cause__, OSError):
                raise self._not_writable(error, version, from_version) from error
            raise CodebookRejected(str(error)) from error
        except OSError as error:
            raise self._not_writable(error, version, from_version) from error

    def _not_writable(self, error: Exception, version: str, from_version: str | None) -> CodebookRejected:
        command = f"activate {version}" if from_version is None else f"rollback --from {from_version}"
        return CodebookRejected(
            f"this server cannot change its store: {error}; run `foldmint-maintenance codebooks {command} "
            "--store STORE` where the store can be written, and the server follows"
        )

    def _is_active(self, version: str) -> bool:
        try:
            control = self._store.control()
        except ModelError:
            return False
        return control.active == version and (control.canary is None or control.canary.version != version)

    def _refuse_canary(self, version: str) -> None:
        """Raise CodebookRejected if this server, by its name, serves another version than the active one."""
        try:
            canary = self._store.canary()
        except ModelError as error:
            raise CodebookRejected(str(error), unreachable=unreachable(error)) from error
        if canary is not None and canary.version != version and canary.includes(self._server):
            raise CodebookRejected(
                f"this server, {self._server}, serves the canary {canary.version}, whatever version is active; "
                "`foldmint-maintenance codebooks canary --end` ends that"
            )

    def _is_gone(self) -> bool:
        """Whether it is the store that cannot be read, and not what it says."""
        try:
            self._store.about()
        except ModelError:
            return True
        return False
