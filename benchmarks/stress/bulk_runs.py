"""Runs of `foldmint-bulk` in processes of their own, of which some are killed."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WORKER = "foldmint_bulk.engines.worker_process"
PARSER = "foldmint_bulk.parsing.child"
_MOUNT, _UMOUNT = (shutil.which(name) or name for name in ("mount", "umount"))


def start(*arguments: str, log: Path | None = None) -> "subprocess.Popen[bytes]":
    """Start the command; its output goes to `log`."""
    with contextlib.ExitStack() as opened:
        out = opened.enter_context(log.open("ab")) if log is not None else subprocess.DEVNULL
        return subprocess.Popen([sys.executable, "-m", "foldmint_bulk.cli", *arguments], stdout=out, stderr=out)


def run(*arguments: str, log: Path | None = None, timeout: float = 3600) -> int:
    """Run the command to its end; its exit code."""
    process = start(*arguments, log=log)
    try:
        return process.wait(timeout)
    finally:
        process.kill()
        process.wait()


def run_until_done(
    arguments: Sequence[str], chooser: random.Random, kills: dict[str, int], log: Path, within: float = 1.5
) -> Counter[str]:
    """Run the command again and again until it exits with 0, while some of its processes are killed by SIGKILL.

    kills: how many of each, `worker`, `parser` and `driver`, at random times. within: seconds between kills, at most.
    Returns how many were. Raises AssertionError if a run that was not killed fails.
    """
    waiting = Counter(kills)
    done: Counter[str] = Counter()
    while True:
        process = start(*arguments, log=log)
        try:
            while process.poll() is None:
                kind = chooser.choice(sorted(waiting.elements())) if waiting.total() else ""
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chooser.uniform(0.2, within) if kind else 3600)
                    break
                pids = [process.pid] if kind == "driver" else descendants(process.pid, kind)
                if pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chooser.choice(pids), signal.SIGKILL)
                        waiting[kind] -= 1
                        done[kind] += 1
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        if code == 0:
            return done
        assert code == -signal.SIGKILL, f"foldmint-bulk ended with {code}: {log.read_text()[-2000:]}"


def descendants(pid: int, kind: str) -> list[int]:
    """The workers or parsers below a process, which have loaded what they need."""
    module = {"worker": WORKER, "parser": PARSER}[kind]
    parents: dict[int, int] = {}
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
            if module in (folder / "cmdline").read_bytes().decode(errors="replace").split("\0"):
                found.append(int(folder.name))
    return [one for one in found if pid in _ancestors(one, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while (pid := parents.get(pid, 0)) > 1:
        yield pid


@contextmanager
def full_disk(folder: Path, left: int) -> Iterator[Path]:
    """A file system of its own at a folder, with so many bytes left until the file that is yielded is removed.

    Needs the rights of an administrator.
    """
    folder.mkdir(parents=True)
    subprocess.run([_MOUNT, "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    try:
        filler = folder / "filler"
        filler.write_bytes(bytes(64 * 2**20 - left))
        yield filler
    finally:
        subprocess.run([_UMOUNT, "-l", str(folder)], check=True)
