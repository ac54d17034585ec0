"""The lock of a store between processes: races, waiting, and owners that died."""

import json
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from foldmint_tokenizer.errors import StoreLocked
from foldmint_tokenizer.store.lock import StoreLock, read_lock
from foldmint_tokenizer.store.process_identity import Process, this_process
from foldmint_tokenizer.store.storage import Files
from helpers.forking import forking

ROUNDS = 25


def _races(folder: str, barrier: multiprocessing.synchronize.Barrier, won: "multiprocessing.Queue[int]") -> None:
    files = Files(folder)
    for number in range(ROUNDS):
        barrier.wait(60)
        try:
            with StoreLock(files) as lock:
                won.put(number)
                barrier.wait(60)
                lock.check()
        except StoreLocked:
            barrier.wait(60)
        barrier.wait(60)


@pytest.mark.slow
def test_of_racing_processes_one_wins_each_round(tmp_path: Path) -> None:
    context = forking()
    barrier, won = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_races, args=(str(tmp_path), barrier, won)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    # Each process has a thread that puts what it won, and may come late.
    assert sorted(won.get(timeout=10) for _ in range(ROUNDS)) == list(range(ROUNDS))
    assert won.empty()
    held = read_lock(Files(tmp_path))
    assert held is not None
    assert held.number == ROUNDS
    assert Files(tmp_path).names("LOCK") == [f"{ROUNDS:06d}.json"]


def test_a_run_waits_for_another_if_told_to(files: Files) -> None:
    held, taken = threading.Event(), []

    def hold() -> None:
        with StoreLock(files):
            held.set()
            time.sleep(0.5)
            taken.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    with StoreLock(files, wait=60):
        taken.append("second")
        with pytest.raises(StoreLocked):
            StoreLock(files, wait=0.3).__enter__()
    thread.join()
    assert taken == ["first", "second"]


_HOLDS = """
import sys, time
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.storage import Files
with StoreLock(Files(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_killed_process_is_taken_at_once(files: Files) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _HOLDS, files.location]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            with pytest.raises(StoreLocked, match=f"locked by process {process.pid} on"):
                StoreLock(files).__enter__()
        finally:
            process.send_signal(signal.SIGKILL)
        # Dead, and not yet buried: its number still stands in /proc.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with StoreLock(files) as lock:
            lock.check()
        process.wait()
        with StoreLock(files) as lock:
            lock.check()


def _left_by(files: Files, owner: Process) -> None:
    value = {"owner": asdict(owner), "expires": time.time() + 600, "released": False}
    files.write("LOCK/000041.json", json.dumps(value).encode())


def _ended() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        return process.pid


def test_only_a_proof_of_death_counts(tmp_path: Path) -> None:
    files, here = Files(tmp_path), this_process()
    dead = replace(here, pid=_ended())
    for other in (
        here,
        replace(dead, host="elsewhere"),
        replace(dead, boot="another"),
        replace(dead, pid_namespace="pid:[1]"),
        replace(dead, started=None),
        replace(dead, pid_namespace=None),
    ):
        _left_by(files, other)
        with pytest.raises(StoreLocked, match="locked by process"):
            StoreLock(files).__enter__()
    # Another process has got the number of the one that held the lock.
    assert here.started is not None
    for gone in (dead, replace(here, started=here.started - 1)):
        files.remove("LOCK")
        _left_by(files, gone)
        with StoreLock(files) as lock:
            lock.check()
            assert files.names("LOCK") == ["000042.json"]
