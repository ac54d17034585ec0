"""Names of the files that hold structures, alone or in archives."""

from pathlib import PurePath

STRUCTURES = (".pdb", ".ent", ".pdb1", ".cif", ".mmcif", ".bcif", ".pdbqt")
"""Of files of one structure; each may be compressed too."""

PDB_LIKE = (".pdb", ".ent", ".pdb1")
"""Of files in the PDB's column format."""

TEXTS = (".pdb", ".ent", ".cif", ".mmcif")
"""Of files of one structure that Foldmint writes, too."""

COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
"""Of files that are compressed."""

FOLDCOMP = ".fcz"
"""Of a structure that Foldcomp compressed."""

TARS = (".tar", ".tgz", ".txz", ".tbz2", ".tzst", *(f".tar{packed}" for packed in COMPRESSED))
"""Of tar archives, plain or compressed."""

ZIP = ".zip"

_FILES = (*STRUCTURES, *(name + packed for name in STRUCTURES for packed in COMPRESSED), FOLDCOMP)


def is_structure(name: str) -> bool:
    """Whether a file is one structure, plain or compressed, judged by its name."""
    return name.lower().endswith(_FILES)


def is_archive(name: str) -> bool:
    """Whether a file is a tar or zip archive, judged by its name."""
    return name.lower().endswith((*TARS, ZIP))


def stem(name: str) -> str:
    """A file's name without the suffixes of a structure: `1a8o.cif.gz` becomes `1a8o`."""
    lower = name.lower()
    for suffix in sorted(_FILES, key=len, reverse=True):
        if lower.endswith(suffix):
            return name[: -len(suffix)]
    return name


def kind(name: str) -> str:
    """What to call the kind of a file: its suffix, or `no suffix`."""
    return PurePath(name.removesuffix(".gz") if name.lower().endswith(".gz") else name).suffix.lower() or "no suffix"
