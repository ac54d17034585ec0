"""How long planning a tar of many members takes, and its memory.

python -m benchmarks bulk-tar [--members 500000] [--json FILE]
"""

import json
import resource
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from benchmarks._common import write
from foldmint_bulk.inputs.base import InputOptions
from foldmint_bulk.inputs.registry import KINDS

_BYTES = 512  # of a member, so that the tar fits into the cache of the file system


def main(
    members: Annotated[int, typer.Option(min=1, help="Members of the tar.")] = 500_000,
    out: Annotated[Path | None, typer.Option("--json", help="Write the results here.")] = None,
) -> None:
    """Write a tar, and plan it."""
    with tempfile.TemporaryDirectory(prefix="foldmint-") as folder:
        path = Path(folder) / "set.tar"
        with path.open("wb") as stream:
            for number in range(members):
                member = tarfile.TarInfo(f"MGYP{number:012d}.pdb.gz")
                member.size = _BYTES
                stream.write(member.tobuf(tarfile.USTAR_FORMAT) + bytes(_BYTES))
            stream.write(bytes(2 * tarfile.BLOCKSIZE))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.monotonic(), time.process_time()
        units = sum(1 for _ in KINDS["tar"].plan([str(path)], 10_000, InputOptions(), Counter()))
        results = {
            "members": members,
            "units": units,
            "seconds": round(time.monotonic() - wall, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "memory_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
        }
    print(json.dumps(results, indent=2))
    write(out, results)
