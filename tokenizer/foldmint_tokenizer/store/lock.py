"""The lock of a store: a lease with an owner and an expiry, so that one run at a time changes the store.

LOCK/000007.json   {"owner": {"host", "pid", "started", "boot", "pid_namespace"}, "expires", "released", "run"}

The file with the highest number is the current lease. A run takes the lock by creating the next number, which only one
of several can do. A run that has lost its lease finds a number higher than its own.
"""

import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from pydantic import TypeAdapter

from foldmint_tokenizer.errors import LockLost, StoreLocked
from foldmint_tokenizer.store.process_identity import Process, this_process
from foldmint_tokenizer.store.storage import Files

TIME_TO_LIVE = 600.0
"""Seconds until a lease expires unless renewed. Clocks of hosts that share a store must differ by far less."""

_FOLDER = "LOCK"
_NAME = re.compile(r"(\d{6,})\.json")
# Attempts to read or take the lock while it changes hands.
_ATTEMPTS = 20
# Seconds between two tries, while another holds it.
_PAUSE = 0.2


@dataclass(frozen=True)
class Lease:
    """Content of a lock file. number: of the file. expires: seconds since 1970. run: unique to each acquisition."""

    number: int
    owner: Process
    expires: float
    released: bool
    run: str = ""

    def is_free(self, now: float) -> bool:
        """Whether another process may take the lock."""
        return self.released or self.expires <= now or self.owner.is_dead()


_LEASE = TypeAdapter(Lease)


def read_lock(files: Files) -> Lease | None:
    """The latest lease of a store, whether it is held or not; None if there never was one.

    Raises `OSError` if the store cannot be read, `StoreLocked` if the file is not a lock.
    """
    for _ in range(_ATTEMPTS):
        number = _latest(files)
        if not number:
            return None
        try:
            return _LEASE.validate_python({**json.loads(files.read(_name(number))), "number": number})
        except FileNotFoundError:
            continue  # a new owner has just removed it
        except (ValueError, TypeError) as error:
            path = files.path(_name(number))
            raise StoreLocked(f"{path} is not a lock; remove it if no run is at the store") from error
    raise _changing(files)


class StoreLock:
    """The lock of a store, as a context manager: `with StoreLock(store.files) as lock:`.

    A thread renews the lease every third of its time to live. Entering takes over a lease that has expired or whose
    owner has ended on this host. It raises `StoreLocked`, which names the owner, if another process holds the lock, and
    `OSError` if the store cannot be read or written.
    """

    def __init__(
        self, files: Files, *, ttl: float = TIME_TO_LIVE, wait: float = 0, clock: Callable[[], float] = time.time
    ) -> None:
        """ttl: seconds until the lease expires unless renewed. wait: seconds to try for while another run holds it.

        clock: seconds since 1970. Raises `ValueError` if `ttl` is not positive.
        """
        if not ttl > 0:
            raise ValueError(f"a lock must live longer than {ttl} s")
        self._files, self._ttl, self._wait, self._clock = files, ttl, wait, clock
        self._run, self._number, self._expires = "", 0, 0.0
        self._writing = threading.Lock()
        self._released = threading.Event()

    def __enter__(self) -> Self:
        self._released.clear()
        self._run = uuid.uuid4().hex
        self._number = self._take_within(self._wait)
        try:
            for number in _numbers(self._files):
                if number < self._number:
                    self._files.remove(_name(number))
            threading.Thread(target=self._renew_until_released, name="store-lock", daemon=True).start()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._release()
        except OSError as failed:
            if error is None:
                raise
            error.add_note(f"{self._files}: its lock could not be released, and will expire: {failed}")

    def check(self) -> None:
        """Verify that the lock is held; call it before each change to the store.

        Raises `LockLost` if another process took the lock over or it expired, `OSError` if the store cannot be read.
        """
        self._check_latest()
        if self._clock() >= self._expires:
            raise LockLost(f"{self._files}: the lock of this run expired at {_time(self._expires)}")

    def renew(self) -> None:
        """Extend the lease by its time to live. Raises `LockLost` if it was taken over, `OSError` if writing fails."""
        with self._writing:
            if self._released.is_set():
                return
            self._check_latest()
            expires = self._clock() + self._ttl
            self._files.write(_name(self._number), self._content(expires))
            self._expires = expires

    def _check_latest(self) -> None:
        latest = _latest(self._files)
        if latest > self._number:
            raise LockLost(f"{self._files}: another run took the lock over, which this one had not renewed in time")
        if latest < self._number:
            raise LockLost(f"{self._files}: the lock of this run was removed")

    def _take_within(self, seconds: float) -> int:
        end = time.monotonic() + seconds
        while True:
            try:
                return self._take()
            except StoreLocked:
                if time.monotonic() >= end:
                    raise
            time.sleep(_PAUSE)

    def _take(self) -> int:
        """The number of the new lease."""
        for _ in range(_ATTEMPTS):
            lease = read_lock(self._files)
            if lease is not None and not lease.is_free(self._clock()):
                until = f"until {_time(lease.expires)}, if that does not renew it"
                raise StoreLocked(f"{self._files} is locked by {lease.owner} {until}", lease.owner, lease.expires)
            number = 1 if lease is None else lease.number + 1
            self._expires = self._clock() + self._ttl
            try:
                self._files.create(_name(number), self._content(self._expires))
            except OSError:
                # Either another run was faster, or S3's client retried a request that had succeeded.
                latest = read_lock(self._files)
                if latest is None or latest.number < number:
                    raise
                if latest.run != self._run:
                    continue
            # Meanwhile others may have held and left this number, and a later owner removed it.
            if _latest(self._files) == number:
                return number
            self._files.remove(_name(number))
        raise _changing(self._files)

    def _renew_until_released(self) -> None:
        pause = self._ttl / 3
        while not self._released.wait(pause):
            try:
                self.renew()
                pause = self._ttl / 3
            except LockLost:
                return  # `check` raises it to the run
            except OSError:
                pause = self._ttl / 12

    def _release(self) -> None:
        self._released.set()
        with self._writing:
            if _latest(self._files) == self._number:  # otherwise it was taken over
                self._files.write(_name(self._number), self._content(self._expires, released=True))

    def _content(self, expires: float, *, released: bool = False) -> bytes:
        value = {"owner": asdict(this_process()), "expires": expires, "released": released, "run": self._run}
        return (json.dumps(value, indent=2) + "\n").encode()


def _name(number: int) -> str:
    return f"{_FOLDER}/{number:06d}.json"


def _numbers(files: Files) -> list[int]:
    matches = (_NAME.fullmatch(name) for name in files.names(_FOLDER))
    return [int(match[1]) for match in matches if match]


def _latest(files: Files) -> int:
    """The number of the current lease; 0 if there is none."""
    return max(_numbers(files), default=0)


def _changing(files: Files) -> StoreLocked:
    return StoreLocked(f"{files}: its lock changes hands all the time")


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s after 1970"
