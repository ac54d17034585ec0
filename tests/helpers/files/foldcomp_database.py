"""Databases as Foldcomp writes them."""

from collections.abc import Sequence
from pathlib import Path

from helpers.support import DATA


def packed_structure() -> bytes:
    """1A8O without MSE, as Foldcomp compresses it: 66 residues."""
    import foldcomp

    pdb = (DATA / "1a8o.pdb").read_text()
    lines = [line for line in pdb.splitlines() if line.startswith("ATOM") and line[17:20] != "MSE"]
    content: bytes = foldcomp.compress("1a8o", "\n".join(lines) + "\n")
    return content


def write_database(path: Path, names: Sequence[str], contents: Sequence[bytes]) -> Path:
    """Entries end with a null character, which their length counts."""
    start, index = 0, []
    for key, content in enumerate(contents):
        index.append(f"{key}\t{start}\t{len(content) + 1}\n")
        start += len(content) + 1
    path.write_bytes(b"".join(content + b"\0" for content in contents))
    path.with_name(path.name + ".index").write_text("".join(index))
    path.with_name(path.name + ".lookup").write_text("".join(f"{key}\t{name}\t0\n" for key, name in enumerate(names)))
    path.with_name(path.name + ".dbtype").write_bytes(bytes(4))
    return path
