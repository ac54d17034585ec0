"""Identity of a process, to find out later, on the same host, whether it has ended."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process on a host.

    started: clock ticks from boot to its start, as in /proc/PID/stat. boot: the boot's id. pid_namespace: the namespace
    of `pid`. The last three are None where the system does not provide them. Raises `ValueError` if `pid` is invalid.
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
        """Whether the process has provably ended. There is no proof from another host, boot or container."""
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
        # /proc may hide processes of other users.
        return found is not None and (found[0] in "ZX" or found[1] != self.started)


def this_process() -> Process:
    """The running process."""
    pid, host = os.getpid(), socket.gethostname()
    found = _state_and_start(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
        visible = str(Path("/proc/self").readlink())
    except OSError:
        return Process(host, pid)
    if found is None or visible != str(pid):  # /proc belongs to another namespace
        return Process(host, pid)
    return Process(host, pid, found[1], boot, namespace)


def _state_and_start(pid: int) -> tuple[str, int] | None:
    """State and start of a process from /proc/PID/stat; None if it cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name in brackets may hold blanks and brackets
    return fields[0], int(fields[19])
