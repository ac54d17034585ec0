"""What a caller gives to be tokenized, and the request messages that it becomes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, TypedDict, TypeGuard

import numpy as np
import numpy.typing as npt

from foldmint.v1 import tokenizer_pb2
from foldmint_client.errors import FieldViolation, InvalidOptions, InvalidStructure, UnreadableInput
from foldmint_client.models.assignment import ASSIGNMENTS, Assignment
from foldmint_client.models.job_version import JobVersion

Format = Literal["pdb", "mmcif", "bcif"]
"""How a file is written: the PDB's column format, PDBx/mmCIF, or BinaryCIF."""

Reading = Literal["all", "esm"]
"""Which residues of a file count: all of a protein, or those that ESM's own reader takes."""

READINGS = {
    None: tokenizer_pb2.READING_UNSPECIFIED,
    "all": tokenizer_pb2.READING_ALL,
    "esm": tokenizer_pb2.READING_ESM,
}
FORMATS = {
    None: tokenizer_pb2.STRUCTURE_FORMAT_UNSPECIFIED,
    "pdb": tokenizer_pb2.STRUCTURE_FORMAT_PDB,
    "mmcif": tokenizer_pb2.STRUCTURE_FORMAT_MMCIF,
    "bcif": tokenizer_pb2.STRUCTURE_FORMAT_BCIF,
}
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, eq=False)
class Backbone:
    """The backbone of one chain.

    coordinates: (residues, 3, 3), Å, float32, of N, CA and C; NaN for a missing atom. Other floats are rounded.
    residue_index: (residues,), integers; none means 1, 2, 3, ...; tokens depend on it. chain: a name, returned with
    the tokens. sequence: one letter a residue, returned with the tokens; empty if not known.

    Raises InvalidStructure if the arrays have other shapes or types; the values are the server's to judge.
    """

    coordinates: npt.NDArray[np.floating]
    residue_index: npt.NDArray[np.integer] | Sequence[int] | None = None
    chain: str = "A"
    sequence: str = ""

    def __post_init__(self) -> None:
        coordinates = np.asarray(self.coordinates)
        if coordinates.shape[1:] != (3, 3) or coordinates.ndim != 3:
            _refuse("coordinates", f"the shape is {coordinates.shape}; expected (residues, 3, 3)")
        if not np.issubdtype(coordinates.dtype, np.floating):
            _refuse("coordinates", f"the type is {coordinates.dtype}; expected float32")
        if self.residue_index is None:
            return
        index = np.asarray(self.residue_index)
        if index.shape != coordinates.shape[:1]:
            _refuse("residue_index", f"the shape is {index.shape}; expected {coordinates.shape[:1]}, as of coordinates")
        if index.size and not np.issubdtype(index.dtype, np.integer):
            _refuse("residue_index", f"the type is {index.dtype}; expected integers")
        if index.size and (index.min() < _INT32.min or index.max() > _INT32.max):
            _refuse("residue_index", "there is a number that 32 bits do not hold")


@dataclass(frozen=True)
class Selection:
    """Some chains of a file.

    file: a path, or the file's bytes. chains: names as its author gave them, instead of `TokenizeOptions.chains`.
    """

    file: str | os.PathLike[str] | bytes
    chains: Sequence[str]


Structure = str | os.PathLike[str] | bytes | Selection | Backbone | Sequence[Backbone]
"""A path (str or os.PathLike), a file's bytes (PDB, mmCIF or BinaryCIF; plain, gzip, zstd, xz or bzip2), chains of a
file, a backbone, or several as one."""


Request = tokenizer_pb2.TokenizeRequest | tokenizer_pb2.DetokenizeRequest


class TokenizeKeywords(TypedDict, total=False):
    """Keywords of `tokenize` and `tokenize_many`; `TokenizeOptions` says what they mean."""

    format: Format | None
    model_number: int
    chains: Sequence[str]
    reading: Reading | None
    min_plddt: float | None
    assembly: str
    renumber: bool
    complex: bool
    special_tokens: bool
    distances: bool
    assignment: Assignment
    first_frames: bool
    codebook_version: str | JobVersion | None


@dataclass(frozen=True)
class TokenizeOptions:
    """What to read of a structure, and what to return of it.

    Of files only: format: `pdb`, `mmcif` or `bcif`, found out from the content by default; model_number: as the file
    numbers its models, 0 for the first; chains: names as the file's author gave them, none for all protein chains;
    reading: `all` residues of proteins, or those that `esm`'s own reader takes, the model's default by default;
    min_plddt: residues whose CA has a lower B-factor, which holds the pLDDT (0 to 100) in predicted models, count as
    without a frame; assembly: the name of the biological assembly to build, empty for the coordinates as they are;
    renumber: number the residues of each chain 1, 2, 3, ... whatever the file says. With a server that is too old to
    know the last four, asking for them raises ServerError.

    complex: look for neighbors across chains. special_tokens: enclose the tokens in BOS and EOS, with CHAINBREAK
    between the chains of a complex. distances: return each residue's distance from its code. assignment: how codes are
    chosen; first_frames: return the frame that each segment begins with; both, unless by default, are for models whose
    codes encode motions, and FailedPrecondition with others. codebook_version: of the codebook to quantize with, or the
    `version` of earlier tokens, with which encoder and digests must agree too; FailedPrecondition if no server can give
    it. By default, the one that is active when the structure arrives. `tokenize_many` uses that of its first answer for
    all structures, whatever server answers them. `ACTIVE`: the one that is active, structure by structure.
    """

    format: Format | None = None
    model_number: int = 0
    chains: Sequence[str] = ()
    reading: Reading | None = None
    min_plddt: float | None = None
    assembly: str = ""
    renumber: bool = False
    complex: bool = False
    special_tokens: bool = False
    distances: bool = False
    assignment: Assignment = "independent"
    first_frames: bool = False
    codebook_version: str | JobVersion | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InvalidOptions(f"format is 'pdb', 'mmcif', 'bcif' or None, not {self.format!r}", "format")
        if self.reading not in READINGS:
            raise InvalidOptions(f"reading is 'all', 'esm' or None, not {self.reading!r}", "reading")
        if self.min_plddt is not None and not 0 <= self.min_plddt <= 100:
            raise InvalidOptions(f"min_plddt is 0 to 100, not {self.min_plddt}", "min_plddt")
        if self.assignment not in ASSIGNMENTS:
            raise InvalidOptions(
                f"assignment is {', '.join(map(repr, ASSIGNMENTS))}, not {self.assignment!r}", "assignment"
            )
        if not 0 <= self.model_number <= _INT32.max:
            raise InvalidOptions(f"model_number is 0 or more, in 32 bits, not {self.model_number}", "model_number")
        if isinstance(self.chains, str):
            raise InvalidOptions(f"chains is a sequence of names, not the text {self.chains!r}", "chains")
        if self.codebook_version in ("", JobVersion()):
            raise InvalidOptions("codebook_version is empty; leave it out for the active one", "codebook_version")

    @property
    def version(self) -> JobVersion:
        """What is known of the version to use."""
        version = self.codebook_version
        return version if isinstance(version, JobVersion) else JobVersion(version or "")


def to_request(structure: Structure, options: TokenizeOptions, max_bytes: int) -> tokenizer_pb2.TokenizeRequest:
    """The request for a structure. max_bytes: what a message may hold; a longer file is not even read.

    Raises UnreadableInput, InvalidStructure or InvalidOptions.
    """
    request = tokenizer_pb2.TokenizeRequest(
        options=tokenizer_pb2.TokenizeOptions(
            complex=options.complex,
            special_tokens=options.special_tokens,
            distances=options.distances,
            # Defaults are not sent, so that older servers and tools behave as before.
            assignment=(
                tokenizer_pb2.ASSIGNMENT_UNSPECIFIED
                if options.assignment == "independent"
                else ASSIGNMENTS[options.assignment]
            ),
            first_frames=options.first_frames,
        ),
        codebook_version=options.version.codebook_version,
    )
    chains = structure.chains if isinstance(structure, Selection) else options.chains
    if isinstance(structure, Selection):
        structure = structure.file
    if isinstance(structure, Backbone):
        structure = [structure]
    if isinstance(structure, (str, os.PathLike, bytes)):
        content = structure if isinstance(structure, bytes) else _read(structure, max_bytes)
        request.file.content = content
        request.file.format = FORMATS[options.format]
        request.file.model_number = options.model_number
        request.file.chains.extend(chains)
        request.file.reading = READINGS[options.reading]
        if options.min_plddt is not None:
            request.file.min_plddt = options.min_plddt
        request.file.assembly = options.assembly
        request.file.renumber = options.renumber
    elif _are_backbones(structure):
        unused = TokenizeOptions()
        for name in ("format", "model_number", "chains", "reading", "min_plddt", "assembly", "renumber"):
            if getattr(options, name) not in (getattr(unused, name), []):
                raise InvalidOptions(f"{name} is for files, and means nothing to backbones")
        request.backbones.chains.extend(map(_to_message, structure))
        request.backbones.SetInParent()
    else:
        _refuse("structure", f"expected a path, bytes, or backbones, not {type(structure).__name__}")
    check_size(request, max_bytes)
    return request


def _are_backbones(structure: object) -> TypeGuard[Sequence[Backbone]]:
    return isinstance(structure, Sequence) and all(isinstance(chain, Backbone) for chain in structure)


def check_size(request: Request, max_bytes: int, what: str = "structure") -> None:
    """Raise InvalidStructure if the request, with a stream's id around it, is longer than a message may be."""
    size = request.ByteSize() + 32
    if size > max_bytes:
        _refuse(what, f"the request has {size} bytes; at most {max_bytes} are taken")


def _to_message(backbone: Backbone) -> tokenizer_pb2.Backbone:
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and the server refuses it
        coordinates = np.asarray(backbone.coordinates, dtype="<f4", order="C").tobytes()
    index = () if backbone.residue_index is None else np.asarray(backbone.residue_index).tolist()
    return tokenizer_pb2.Backbone(
        chain=backbone.chain, coordinates=coordinates, residue_index=index, sequence=backbone.sequence
    )


def _read(source: str | os.PathLike[str], max_bytes: int) -> bytes:
    path = Path(source)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            _refuse("structure", f"the file has {size} bytes; at most {max_bytes} are taken")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableInput(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, InvalidStructure):
            raise
        raise UnreadableInput(f"{str(path)!r}: {error}") from error  # a null character in the name


def _refuse(field: str, description: str) -> NoReturn:
    what = "tokens" if field == "tokens" else "structure"
    raise InvalidStructure(f"the {what} cannot be sent", [FieldViolation(field, description)])
