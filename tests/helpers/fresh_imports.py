"""Modules that a fresh interpreter has imported once it has run some code."""

import os
import subprocess
import sys


def imported_by(code: str, *arguments: str) -> frozenset[str]:
    """Names of all modules that are imported when the code has ended; arguments: its `sys.argv[1:]`.

    The code may end by `sys.exit(0)`. Fails if it ends otherwise.
    """
    listed = f"import atexit, sys\natexit.register(lambda: print('\\nMODULES', *sys.modules))\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", listed, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return frozenset(done.stdout.rpartition("\nMODULES ")[2].split())
