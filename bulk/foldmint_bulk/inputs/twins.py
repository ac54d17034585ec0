"""Structures that an archive has twice: as mmCIF and, by the same name, in the PDB's column format.

AlphaFold DB's proteomes are such archives. A structure's PDB file is skipped if its mmCIF file is there.
"""

import itertools
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from foldmint_bulk.errors import UnreadableInput
from foldmint_bulk.inputs.base import RawStructure
from foldmint_client.io.suffixes import COMPRESSED, PDB_LIKE, is_structure, stem

PDB_TWINS = "PDB files of which there are mmCIF files"
CIF_TWINS = "mmCIF files of which there are PDB files"
"""Kinds under which what is skipped is counted."""

ALL = "all"
_CIF_LIKE = (".cif", ".mmcif", ".bcif")
_OTHER, _PDB, _CIF = 0, 1, 2


class Twins:
    """Names of twins. found: `ALL` PDB files, or hashes of some; None: there are none."""

    def __init__(self, found: str | list[str] | None) -> None:
        self._all = found == ALL
        self._keys = frozenset(int(key, 16) for key in found or ()) if not isinstance(found, str) else frozenset()

    def __contains__(self, name: str) -> bool:
        if not (self._all or self._keys):
            return False
        return _form(name) == _PDB and (self._all or _key(name) in self._keys)


@dataclass(frozen=True)
class Range:
    """Members of an archive. start: place of the first one. structures: without twins. twins: as `Twins` takes them."""

    start: int
    structures: int
    twins: str | list[str] | None
    twin_count: int


class Names:
    """The structures of an archive, of which little is kept: there may be millions."""

    def __init__(self) -> None:
        self._keys, self._places, self._forms = array("Q"), array("Q"), bytearray()

    def __len__(self) -> int:
        return len(self._forms)

    def add(self, name: str, place: int) -> None:
        """Add one, and its place in the archive."""
        self._keys.append(_key(name))
        self._places.append(place)
        self._forms.append(_form(name))

    def ranges(self, structures: int) -> list[Range]:
        """Ranges of so many structures each, twins left out."""
        if not len(self):
            return []
        keys, forms = np.frombuffer(self._keys, np.uint64), np.frombuffer(self._forms, np.uint8)
        pdb = forms == _PDB
        twins = pdb & np.isin(keys, keys[forms == _CIF])
        # Twins before the first structure of a range are of the range before.
        kept = np.flatnonzero(~twins)
        bounds = [0, *kept[structures::structures].tolist(), len(keys)]
        found = []
        for start, stop in itertools.pairwise(bounds):
            own = twins[start:stop]
            count = int(own.sum())
            names: str | list[str] | None = None
            if count:
                every = count == int(pdb[start:stop].sum())
                names = ALL if every else [f"{key:x}" for key in keys[start:stop][own].tolist()]
            found.append(Range(self._places[start], stop - start - count, names, count))
        return found


def without_twins(structures: Iterator[RawStructure], skipped: Counter[str]) -> Iterator[RawStructure]:
    """The structures of an archive whose names are not known before.

    Of twins, the first one is kept; the second one, if it is mmCIF and follows at once. skipped: counts the others.
    """
    seen, held = set[int](), None
    try:
        for structure in structures:
            form, key = _form(structure.source), _key(structure.source)
            if held is not None:
                if not (form == _CIF and _key(held.source) == key):
                    yield held
                else:
                    seen.discard(key)
                    skipped[PDB_TWINS] += 1
                held = None
            if form == _OTHER:
                yield structure
            elif key not in seen:
                seen.add(key)
                if form == _PDB:
                    held = structure
                else:
                    yield structure
            else:
                skipped[PDB_TWINS if form == _PDB else CIF_TWINS] += 1
    except UnreadableInput:
        if held is not None:
            yield held
        raise
    if held is not None:
        yield held


def _form(name: str) -> int:
    lower = name.lower()
    for packed in COMPRESSED:
        lower = lower.removesuffix(packed)
    if lower.endswith(_CIF_LIKE):
        return _CIF
    return _PDB if lower.endswith(PDB_LIKE) else _OTHER


def _key(name: str) -> int:
    """A hash of a name without the suffixes of a structure."""
    own = stem(name) if is_structure(name) else name
    return int.from_bytes(blake2b(own.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")
