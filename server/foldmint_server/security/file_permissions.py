"""Files of secrets: who else may read or write one, and writing one that only its owner may read."""

import os
import stat
import tempfile
from pathlib import Path
from typing import IO


def writable_by_others(file: "IO[bytes]", path: Path) -> str:
    """What is wrong with an open file that every user can write, and the remedy; empty if nothing is."""
    if not os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
        return ""
    return f"{path}: every user of this machine can write it, and let themselves in; chmod o-w {path}"


def exposure(path: Path) -> str:
    """What others may do with a file: `read by every user`, `written by its group`, both or nothing."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    found = {"read by every user": mode & stat.S_IROTH, "written by its group": mode & stat.S_IWGRP}
    return ", ".join(text for text, there in found.items() if there)


def replace_privately(file: Path, text: str) -> None:
    """Write a file that only its owner may read, atomically, so that nobody reads half of it. Raises OSError."""
    handle, part = tempfile.mkstemp(dir=file.resolve().parent, prefix=f".{file.name}.")  # of mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        Path(part).replace(file.resolve())
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
