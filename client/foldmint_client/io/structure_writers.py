"""Writers of decoded structures: a PDB or mmCIF file each, or JSON lines or npz for all."""

import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt

from foldmint_client.errors import InvalidOptions
from foldmint_client.io.discovery import STDIN
from foldmint_client.io.suffixes import COMPRESSED, FOLDCOMP, STRUCTURES
from foldmint_client.io.token_readers import Found
from foldmint_client.io.token_writers import completed, standard_output
from foldmint_client.models.decoded import Decoded, DecodedChain


class StructureOutput(StrEnum):
    """How structures are written."""

    PDB = "pdb"
    MMCIF = "mmcif"
    NPZ = "npz"
    JSONL = "jsonl"


FILE_SUFFIX = {StructureOutput.PDB: ".pdb", StructureOutput.MMCIF: ".cif"}
"""Of the formats that have one structure a file."""

_SOURCE_SUFFIXES = "|".join(map(re.escape, (*STRUCTURES, FOLDCOMP, ".txt", ".jsonl")))
_SOURCE_SUFFIX = re.compile(rf"({_SOURCE_SUFFIXES})({'|'.join(map(re.escape, COMPRESSED))})?(?=$|:)", re.IGNORECASE)


class Folder:
    """Names of files in a folder, which is made, for structures, after their sources."""

    def __init__(self, path: Path, suffix: str, *, overwrite: bool) -> None:
        self._path, self._suffix, self._overwrite = path, suffix, overwrite
        self._taken: set[str] = set()
        path.mkdir(parents=True, exist_ok=True)

    def claim(self, found: Found) -> Path:
        """The file for a structure; -2, -3, … distinguishes those that would have one name.

        Raises InvalidOptions if it is there already, and is not to be written over.
        """
        stem, number = file_stem(found.name), 1
        name = stem
        while name.casefold() in self._taken:  # some file systems know no case
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name.casefold())
        path = self._path / f"{name}{self._suffix}"
        if path.exists() and not self._overwrite:
            raise InvalidOptions(f"{path} exists; --overwrite replaces it")
        return path


def write_file(path: Path, decoded: Decoded) -> None:
    """Write the PDB or mmCIF file that a server made, and the PAE, if there is one, beside it, as .pae.npy."""
    with completed(path) as stream:
        stream.write(decoded.file or b"")
    if decoded.pae is not None:
        with completed(path.with_suffix(".pae.npy")) as stream:
            np.lib.format.write_array(stream, decoded.pae, allow_pickle=False)


class Writer(Protocol):
    """Takes one structure after another, all for one output."""

    def write(self, found: Found, decoded: Decoded) -> None:
        """Write a structure."""


class TextWriter:
    """The PDB or mmCIF files that a server made, as they are."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, found: Found, decoded: Decoded) -> None:  # noqa: ARG002 (its name is nowhere in it)
        """Write a structure's file, at once."""
        self._stream.write(decoded.file or b"")
        self._stream.flush()


class JsonlWriter:
    """One JSON object a line and structure: coordinates to 0.001 Å, plddt from 0 to 1, pae to 0.01 Å; null in gaps."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, found: Found, decoded: Decoded) -> None:
        """Write a structure, at once."""
        row: dict[str, object] = {
            "source": found.source,
            "model": decoded.model,
            "codebook_version": decoded.codebook_version,
            "ptm": None if math.isnan(decoded.ptm) else round(decoded.ptm, 4),
            "chains": [self._chain(chain) for chain in decoded.chains],
        }
        if decoded.pae is not None:
            row["pae"] = _rounded(decoded.pae, 2)
        self._stream.write(f"{json.dumps(row, allow_nan=False)}\n".encode())
        self._stream.flush()

    def _chain(self, chain: DecodedChain) -> dict[str, object]:
        row: dict[str, object] = {
            "chain": chain.chain,
            "residue_index": chain.residue_index.tolist(),
            "sequence": chain.sequence,
        }
        if chain.insertion_codes:
            row["insertion_codes"] = chain.insertion_codes
        if not chain.placed.all():
            row["segment_starts"] = chain.segment_starts.tolist()
            row["placed"] = chain.placed.tolist()
        return row | {"plddt": _rounded(chain.plddt, 4), "coordinates": _rounded(chain.coordinates, 3)}


class NpzWriter:
    """Arrays for numpy.load: `SOURCE:CHAIN:coordinates`, `:plddt` and `:residue_index` of each chain, `SOURCE:ptm` and
    `SOURCE:pae` of the structure; of a chain that was taken by itself, `SOURCE:CHAIN:ptm` and `SOURCE:CHAIN:pae`.

    Each is written as it comes. A structure that was there before gets #2 after its source, then #3.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED)
        self._seen: dict[str, int] = {}

    def write(self, found: Found, decoded: Decoded) -> None:
        """Write a structure's arrays."""
        count = self._seen[found.name] = self._seen.get(found.name, 0) + 1
        if count > 1:
            found = found._replace(source=f"{found.source}#{count}")
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        for chain in decoded.chains:
            key = f"{found.source}:{chain.chain}"
            arrays[f"{key}:coordinates"] = chain.coordinates
            arrays[f"{key}:plddt"] = chain.plddt
            arrays[f"{key}:residue_index"] = chain.residue_index
        arrays[f"{found.name}:ptm"] = np.array(decoded.ptm, np.float32)
        if decoded.pae is not None:
            arrays[f"{found.name}:pae"] = decoded.pae
        self._add(arrays)

    def close(self) -> None:
        """Write the archive's directory."""
        self._archive.close()

    def _add(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        for name, array in arrays.items():
            with self._archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


@contextmanager
def opened(form: StructureOutput, path: Path | None) -> Iterator[Writer]:
    """A writer to a file, or to standard output. The file appears under its name when all is written, or not at all."""
    with standard_output() if path is None else completed(path) as stream:
        if form in FILE_SUFFIX:
            yield TextWriter(stream)
        elif form is StructureOutput.JSONL:
            yield JsonlWriter(stream)
        else:
            writer = NpzWriter(stream)
            try:
                yield writer
            finally:
                writer.close()


def file_stem(source: str) -> str:
    """A file's name, without suffix, for a source: `structures/1a8o.cif.gz:A` becomes `1a8o_A`."""
    name = "stdin" + source[1:] if source == STDIN or source.startswith(f"{STDIN}:") else source
    name = _SOURCE_SUFFIX.sub("", re.split(r"[/\\!]", name)[-1])
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".")[:200] or "structure"


def _rounded(array: npt.NDArray[np.float32], decimals: int) -> object:
    """Nested lists, with None for NaN."""
    rounded = np.round(array.astype(np.float64), decimals)
    if not np.isnan(rounded).any():
        return rounded.tolist()
    values = rounded.astype(object)
    values[np.isnan(rounded)] = None
    return values.tolist()
