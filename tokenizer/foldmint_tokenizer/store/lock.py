"""The lock of a store: one run at a time changes it; the lock names its owner and expires, wherever the store lies.

LOCK/000007.json   {"owner": {"host", "pid", "started", "boot", "pid_namespace"}, "expires", "released", "run"}

The file of the highest number counts. Who takes the lock creates the next one, which one of several can; a run that
was taken for dead and is not finds a higher number than its own.
"""

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from foldmint_tokenizer.errors import LockLost, StoreLocked
from foldmint_tokenizer.store.storage import Files

TIME_TO_LIVE = 600.0
"""Seconds that a lock lives unless it is renewed. Clocks of hosts that share a store must differ by far less."""

_FOLDER = "LOCK"
_NAME = re.compile(r"(\d{6,})\.json")
# Of taking the lock, while others come and go between look and grasp.
_ATTEMPTS = 20
# Seconds between two tries, while another holds it.
_PAUSE = 0.2


@dataclass(frozen=True)
class Owner:
    """A process that holds a lock.

    started: clock ticks from the boot to its start, as in /proc/PID/stat. boot: the id of the boot. pid_namespace: the
    one that pid is of. None where the system does not tell.
    """

    host: str
    pid: int
    started: int | None = None
    boot: str | None = None
    pid_namespace: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.pid < 2**31:
            raise ValueError(f"{self.pid} is not a process")

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_dead(self) -> bool:
        """Whether there is proof that the process has ended; elsewhere than on its host and in its container, none."""
        here = this_process()
        if None in (self.started, self.boot, self.pid_namespace):
            return False
        if (self.host, self.boot, self.pid_namespace) != (here.host, here.boot, here.pid_namespace):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        found = _state_and_start(self.pid)
        # Of other users' processes /proc may tell nothing.
        return found is not None and (found[0] in "ZX" or found[1] != self.started)


@dataclass(frozen=True)
class Held:
    """What a lock's file says. number: the file's. expires: seconds since 1970. run: differs with each holding."""

    number: int
    owner: Owner
    expires: float
    released: bool
    run: str = ""

    def is_free(self, now: float) -> bool:
        """Whether another process may take the lock."""
        return self.released or self.expires <= now or self.owner.is_dead()


def this_process() -> Owner:
    """The running process, as the owner of a lock."""
    pid, host = os.getpid(), socket.gethostname()
    found = _state_and_start(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
        told_of = str(Path("/proc/self").readlink())
    except OSError:
        return Owner(host, pid)
    if found is None or told_of != str(pid):  # /proc is that of another namespace
        return Owner(host, pid)
    return Owner(host, pid, found[1], boot, namespace)


def read_lock(files: Files) -> Held | None:
    """The last lock of a store, whether it is held or not; None if there never was one.

    Raises OSError if the store cannot be read, StoreLocked if the file is not a lock's.
    """
    for _ in range(_ATTEMPTS):
        numbers = _numbers(files)
        if not numbers:
            return None
        try:
            return _read(files, numbers[-1])
        except FileNotFoundError:
            continue  # a new owner has just removed it
    raise StoreLocked(f"{files}: its lock changes hands all the time")


class StoreLock:
    """The lock of a store, as a context: `with StoreLock(store.files) as lock:`.

    While it is held, a thread renews it each third of its time to live. Entering raises StoreLocked, which names the
    owner, if another process holds it, and OSError if the store cannot be read or written. A lock that has expired, or
    whose owner has ended on this host, is taken over.
    """

    def __init__(
        self, files: Files, *, ttl: float = TIME_TO_LIVE, wait: float = 0, clock: Callable[[], float] = time.time
    ) -> None:
        """ttl: seconds that the lock lives without being renewed. wait: seconds to try for, while another holds it.

        clock: seconds since 1970. Raises ValueError if ttl is not positive.
        """
        if not ttl > 0:
            raise ValueError(f"a lock must live longer than {ttl} s")
        self._files, self._ttl, self._wait, self._clock = files, ttl, wait, clock
        self._run = ""
        self._number = 0
        self._expires = 0.0
        self._change = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._done.clear()
        self._run = uuid.uuid4().hex
        self._number = self._take_within(self._wait)
        try:
            for number in _numbers(self._files):
                if number < self._number:
                    self._files.remove(_name(number))
            self._thread = threading.Thread(target=self._keep, name="store-lock", daemon=True)
            self._thread.start()
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
        """Make sure that the lock is still held: before each change that others must not make at the same time.

        Raises LockLost if another process took it over or it expired, OSError if the store cannot be read.
        """
        highest = max(_numbers(self._files), default=0)
        if highest > self._number:
            raise LockLost(f"{self._files}: another run took the lock over, which this one had not renewed in time")
        if highest < self._number:
            raise LockLost(f"{self._files}: the lock of this run was removed")
        if self._clock() >= self._expires:
            raise LockLost(f"{self._files}: the lock of this run expired at {_time(self._expires)}")

    def renew(self) -> None:
        """Let the lock live for its time from now on. Raises LockLost if it was taken over, OSError if it fails."""
        with self._change:
            if self._done.is_set():
                return
            if max(_numbers(self._files), default=0) != self._number:
                raise LockLost(f"{self._files}: another run took the lock over, or removed it")
            expires = self._clock() + self._ttl
            self._files.write(_name(self._number), self._written(expires, released=False))
            self._expires = expires

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
        for _ in range(_ATTEMPTS):
            held = read_lock(self._files)
            if held is not None and not held.is_free(self._clock()):
                raise StoreLocked(
                    f"{self._files} is locked by {held.owner} until {_time(held.expires)}, if that does not renew it",
                    held.owner,
                    held.expires,
                )
            number = 1 if held is None else held.number + 1
            self._expires = self._clock() + self._ttl
            try:
                self._files.create(_name(number), self._written(self._expires, released=False))
            except OSError:
                # Of two at once, S3 may tell one of a conflict; and one whose first try got through, of its own file.
                if max(_numbers(self._files), default=0) < number:
                    raise
                if not self._is_ours(number):
                    continue
            # Since the look, others may have held and left this number, and a still later owner removed it.
            if max(_numbers(self._files), default=0) == number:
                return number
            self._files.remove(_name(number))
        raise StoreLocked(f"{self._files}: its lock changes hands all the time")

    def _is_ours(self, number: int) -> bool:
        try:
            return _read(self._files, number).run == self._run
        except FileNotFoundError:
            return False

    def _keep(self) -> None:
        """Renew until released or lost; `check` tells when that failed for too long."""
        pause = self._ttl / 3
        while not self._done.wait(pause):
            try:
                self.renew()
            except LockLost:
                return
            except OSError:
                pause = self._ttl / 12
            else:
                pause = self._ttl / 3

    def _release(self) -> None:
        self._done.set()
        with self._change:
            # One that was taken over is not ours to write.
            if max(_numbers(self._files), default=0) == self._number:
                self._files.write(_name(self._number), self._written(self._expires, released=True))

    def _written(self, expires: float, *, released: bool) -> bytes:
        value = {"owner": asdict(this_process()), "expires": expires, "released": released, "run": self._run}
        return (json.dumps(value, indent=2) + "\n").encode()


def _name(number: int) -> str:
    return f"{_FOLDER}/{number:06d}.json"


def _numbers(files: Files) -> list[int]:
    """The numbers of all locks of a store, in order."""
    matches = (_NAME.fullmatch(name) for name in files.names(_FOLDER))
    return sorted(int(match[1]) for match in matches if match)


def _read(files: Files, number: int) -> Held:
    name = _name(number)
    try:
        value = json.loads(files.read(name))
        owner = value["owner"]
        texts = {key: None if owner.get(key) is None else str(owner[key]) for key in ("boot", "pid_namespace")}
        started = None if owner.get("started") is None else int(owner["started"])
        held = Owner(str(owner["host"]), int(owner["pid"]), started, texts["boot"], texts["pid_namespace"])
        return Held(number, held, float(value["expires"]), bool(value["released"]), str(value.get("run")))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreLocked(
            f"{files.path(name)} is not a lock; remove it if no run is at the store: {error!r}"
        ) from error


def _state_and_start(pid: int) -> tuple[str, int] | None:
    """State and start of a process, from /proc/PID/stat; None if that does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # a name may hold blanks and brackets
    return fields[0], int(fields[19])


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s after 1970"
