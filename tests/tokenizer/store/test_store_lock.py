"""The lock of a store: one owner at a time, in a folder and in S3, which expires, and is renewed."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from foldmint_tokenizer.errors import LockLost, StoreLocked
from foldmint_tokenizer.store.lock import StoreLock, read_lock
from foldmint_tokenizer.store.process_identity import this_process
from foldmint_tokenizer.store.storage import Files
from helpers.waiting import wait_until


class _Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class _Meanwhile(Files):
    """Files before whose next creation something else happens."""

    def __init__(self, files: Files, happens: Callable[[], object]) -> None:
        super().__init__(files.location)
        self._happens: list[Callable[[], object]] = [happens]

    def create(self, name: str, content: bytes) -> None:
        if self._happens:
            self._happens.pop()()
        super().create(name, content)


class _Broken(Files):
    """Files that cannot be written while they are broken."""

    broken = False

    def write(self, name: str, content: bytes) -> None:
        if self.broken:
            raise OSError(f"{name}: no room")
        super().write(name, content)


def test_a_lock_is_held_by_one_and_released(files: Files) -> None:
    assert read_lock(files) is None
    with StoreLock(files) as lock:
        lock.check()
        lock.renew()
        lock.check()
        with pytest.raises(StoreLocked, match=rf"locked by process {os.getpid()} on .* until 20\d\d-") as caught:
            StoreLock(files).__enter__()
        held = read_lock(files)
        assert held is not None
        assert (held.number, held.owner, held.released) == (1, this_process(), False)
        assert (caught.value.owner, caught.value.expires) == (held.owner, held.expires)
        assert 590 < held.expires - time.time() < 610
    with StoreLock(files) as lock:
        lock.check()
        assert files.names("LOCK") == ["000002.json"]
    held = read_lock(files)
    assert held is not None
    assert held.released


def test_an_error_releases_it(files: Files) -> None:
    with pytest.raises(ZeroDivisionError), StoreLock(files):
        _ = 1 / 0
    with StoreLock(files) as lock:
        lock.check()


def test_a_lock_expires(files: Files) -> None:
    clock = _Clock()
    with StoreLock(files, ttl=100, clock=clock) as first:
        clock.now += 99
        first.check()
        with pytest.raises(StoreLocked):
            StoreLock(files, ttl=100, clock=clock).__enter__()
        first.renew()
        clock.now += 99
        first.check()
        clock.now += 1
        with pytest.raises(LockLost, match="expired at 20"):
            first.check()
        # Late is not too late, as long as nobody came.
        first.renew()
        first.check()
        clock.now += 100
        with StoreLock(files, ttl=100, clock=clock) as second:
            second.check()
            with pytest.raises(LockLost, match="took the lock over"):
                first.check()
            with pytest.raises(LockLost, match="took the lock over"):
                first.renew()
            first.__exit__(None, None, None)
            # What the first left is not what the second holds.
            second.check()
            with pytest.raises(StoreLocked):
                StoreLock(files, ttl=100, clock=clock).__enter__()
            assert files.names("LOCK") == ["000002.json"]
    held = read_lock(files)
    assert held is not None
    assert (held.number, held.released) == (2, True)


def test_a_lock_that_was_removed_is_lost(tmp_path: Path) -> None:
    with StoreLock(Files(tmp_path)) as lock:
        (tmp_path / "LOCK/000001.json").unlink()
        with pytest.raises(LockLost, match="was removed"):
            lock.check()


def test_between_look_and_grasp_another_may_take_it(files: Files) -> None:
    other = StoreLock(files)
    with pytest.raises(StoreLocked, match="locked by process"):
        StoreLock(_Meanwhile(files, other.__enter__)).__enter__()
    other.check()
    other.__exit__(None, None, None)


def test_between_look_and_grasp_several_may_come_and_go(files: Files) -> None:
    third = StoreLock(files)

    def happens() -> None:
        with StoreLock(files):
            pass
        third.__enter__()  # removes the number that the late one is about to create

    with pytest.raises(StoreLocked, match="locked by process"):
        StoreLock(_Meanwhile(files, happens)).__enter__()
    third.check()
    assert files.names("LOCK") == ["000002.json"]
    third.__exit__(None, None, None)


class _Stammering(Files):
    """Files whose answer to a creation is lost, so that it is asked for twice, as S3's client does."""

    def create(self, name: str, content: bytes) -> None:
        super().create(name, content)
        super().create(name, content)


def test_a_lock_that_was_written_without_an_answer_is_held(files: Files) -> None:
    with StoreLock(_Stammering(files.location)) as lock:
        lock.check()
        with pytest.raises(StoreLocked):
            StoreLock(files).__enter__()


def test_a_thread_renews_it_and_goes_on_after_a_failure(tmp_path: Path) -> None:
    files, clock = _Broken(tmp_path), _Clock()

    def expires() -> float:
        lease = read_lock(files)
        assert lease is not None
        return lease.expires

    with StoreLock(files, ttl=0.3, clock=clock) as lock:
        for _ in range(3):
            clock.now += 0.2
            wait_until(lambda: expires() == clock.now + 0.3)
            lock.check()
        files.broken = True
        clock.now += 1
        with pytest.raises(LockLost, match="expired"):
            lock.check()
        files.broken = False
        wait_until(lambda: _held(lock))


def _held(lock: StoreLock) -> bool:
    try:
        lock.check()
    except LockLost:
        return False
    return True


def test_a_lock_that_cannot_be_released_is_told(tmp_path: Path) -> None:
    files = _Broken(tmp_path)
    with pytest.raises(OSError, match="no room"), StoreLock(files):
        files.broken = True
    files.remove("LOCK")
    with pytest.raises(ZeroDivisionError) as caught, StoreLock(files):
        _ = 1 / 0
    assert "could not be released, and will expire" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"owner": {"host": "x", "pid": -1}, "expires": 0, "released": false}',
        b'{"owner": {"host": "x", "pid": 1}, "expires": "soon", "released": false}',
    ],
)
def test_what_is_no_lock_is_told(tmp_path: Path, content: bytes) -> None:
    files = Files(tmp_path)
    files.write("LOCK/000003.json", content)
    with pytest.raises(StoreLocked, match=r"LOCK/000003\.json is not a lock; remove it"):
        StoreLock(files).__enter__()


def test_what_lies_beside_it_does_not_count(tmp_path: Path) -> None:
    files = Files(tmp_path)
    for name in (".000009.json.0af1.part", "000009.json.bak", "README"):
        files.write(f"LOCK/{name}", b"")
    with StoreLock(files) as lock:
        lock.check()
        assert "000001.json" in files.names("LOCK")


@pytest.mark.parametrize("ttl", [0, -1, float("nan")])
def test_a_lock_must_live(tmp_path: Path, ttl: float) -> None:
    with pytest.raises(ValueError, match="must live longer"):
        StoreLock(Files(tmp_path), ttl=ttl)
