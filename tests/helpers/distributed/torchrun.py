"""Two real processes under torchrun."""

import os
import subprocess
import sys
from pathlib import Path


def torchrun(*command: str | Path) -> "subprocess.Popen[str]":
    """Two processes by torchrun."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, command)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def waited(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Exit code, stdout and stderr; torchrun takes its processes along."""
    try:
        out, err = process.communicate(timeout=400)
    finally:
        process.terminate()
    return process.returncode, out, err


def rank_of(process: "subprocess.Popen[str]", rank: int) -> int | None:
    """The process id of a rank."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    return None
