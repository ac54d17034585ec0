"""Parses the messages of requests into the tokenizer's types."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_tokenizer import (
    Assignment,
    Backbone,
    ChainLabels,
    InvalidStructure,
    InvalidTokens,
    Limits,
    ReadOptions,
    StructureContent,
)
from foldmint_tokenizer.detokenizer import checked_tokens
from foldmint_tokenizer.motion.motions import Segments, checked_segments, numbered_segments
from foldmint_tokenizer.structure.chain_labels import CompleteLabels, completed
from foldmint_tokenizer.structure.left_out import frame_warnings
from foldmint_tokenizer.structure.options import Format, Reading, WrittenFormat
from foldmint_tokenizer.structure.writer import check_writable
from foldmint_tokenizer.tokens import TokenizeOptions
from foldmint_tokenizer.vocabulary import CHAINBREAK

_FORMATS: dict[int, Format | None] = {
    pb.STRUCTURE_FORMAT_UNSPECIFIED: None,
    pb.STRUCTURE_FORMAT_PDB: "pdb",
    pb.STRUCTURE_FORMAT_MMCIF: "mmcif",
    pb.STRUCTURE_FORMAT_BCIF: "bcif",
}
_ASSIGNMENTS: dict[int, Assignment] = {
    pb.ASSIGNMENT_UNSPECIFIED: Assignment.INDEPENDENT,
    pb.ASSIGNMENT_INDEPENDENT: Assignment.INDEPENDENT,
    pb.ASSIGNMENT_ANCHORED: Assignment.ANCHORED,
    pb.ASSIGNMENT_TRACKING: Assignment.TRACKING,
}
_WRITTEN: dict[int, WrittenFormat | None] = {
    pb.STRUCTURE_FORMAT_UNSPECIFIED: None,
    pb.STRUCTURE_FORMAT_PDB: "pdb",
    pb.STRUCTURE_FORMAT_MMCIF: "mmcif",
}
_READINGS: dict[int, Reading] = {pb.READING_ALL: "all", pb.READING_ESM: "esm"}
_RESIDUE_BYTES = 3 * 3 * 4
_FRAME_BYTES = 12 * 4


def reading_of(request: pb.TokenizeRequest, default: Reading) -> Reading | None:
    """Which residues of a request's file count; None of backbones. Raises InvalidStructure."""
    if request.WhichOneof("structure") != "file":
        return None
    if request.file.reading == pb.READING_UNSPECIFIED:
        return default
    if request.file.reading not in _READINGS:
        raise InvalidStructure("file.reading", f"{request.file.reading} is not a reading")
    return _READINGS[request.file.reading]


def parse_backbones(request: pb.TokenizeRequest, limits: Limits) -> StructureContent:
    """The structure of a request that holds no file.

    Raises InvalidStructure, with the field's whole path.
    """
    if request.WhichOneof("structure") != "backbones":
        raise InvalidStructure("structure", "neither a file nor backbones are given")
    chains = _unpacked(request.backbones, limits)
    return StructureContent(chains, warnings=frame_warnings(chains))


def tokenize_options(request: pb.TokenizeRequest) -> TokenizeOptions:
    """What a request asks to be returned."""
    options = request.options
    return TokenizeOptions(
        options.complex,
        options.special_tokens,
        options.distances,
        assignment_of(options.assignment, "options.assignment"),
        options.first_frames,
    )


def assignment_of(value: int, field: str) -> Assignment:
    """The assignment that a message names. Raises InvalidStructure if there is none of this number."""
    if value not in _ASSIGNMENTS:
        raise InvalidStructure(field, f"{value} is not an assignment")
    return _ASSIGNMENTS[value]


@dataclass(frozen=True, eq=False)
class ParsedTokens:
    """The valid tokens of a request, to be decoded.

    tokens: (length,) int64, from BOS to EOS. has_frame: (residues,) bool; None: all have one. format: of the file
    wanted. segments: of each chain, as given, or else derived from the residue numbers.
    """

    tokens: NDArray[np.int64]
    has_frame: NDArray[np.bool_] | None
    labels: list[CompleteLabels]
    format: WrittenFormat | None
    residues: int
    assignment: Assignment
    segments: list[Segments]

    @property
    def needs_motions(self) -> str:
        """What needs a model whose codes encode motions, in words; empty if nothing does."""
        if self.assignment is not Assignment.INDEPENDENT:
            return f"{self.assignment} tokens"
        return "" if all(np.isnan(own.frames).all() for own in self.segments) else "first frames of segments"


def parse_tokens(request: pb.DetokenizeRequest, codes: int, limits: Limits) -> ParsedTokens:
    """The tokens of a request; codes: how many the model has.

    Raises InvalidTokens, and InvalidStructure for other invalid fields.
    """
    count = len(request.tokens)
    # Before anything is allocated. BOS and EOS, and CHAINBREAK between chains, come on top.
    if count > limits.residues + limits.chains + 1:
        raise InvalidTokens(f"{count} tokens; at most {limits.residues} residues are taken")
    tokens = checked_tokens(np.fromiter(request.tokens, np.int64, count), codes)
    breaks = np.flatnonzero(tokens == CHAINBREAK)
    sizes = np.diff([0, *breaks, len(tokens) - 1]) - 1
    residues = int(sizes.sum())
    if residues > limits.residues:
        raise InvalidTokens(f"{residues} residues; at most {limits.residues} are taken")
    if len(sizes) > limits.chains:
        raise InvalidTokens(f"{len(sizes)} chains; at most {limits.chains} are taken")
    if request.options.format not in _WRITTEN:
        raise InvalidStructure("options.format", f"{request.options.format} is not a format of files that are written")
    labels = completed(sizes.tolist(), _labels(request, limits))
    wanted = ParsedTokens(
        tokens,
        _frames(request, sizes.tolist()),
        labels,
        _WRITTEN[request.options.format],
        residues,
        assignment_of(request.assignment, "assignment"),
        _segments(request, labels),
    )
    if wanted.format is not None:
        with option_errors():
            check_writable(wanted.labels, wanted.format)
    return wanted


def _labels(request: pb.DetokenizeRequest, limits: Limits) -> list[ChainLabels]:
    _check_labels(request.chains, limits, "chains")
    return [
        ChainLabels(
            chain.chain,
            chain.sequence,
            np.fromiter(chain.residue_index, np.int64, len(chain.residue_index)),
            chain.insertion_codes,
        )
        for chain in request.chains
    ]


def _segments(request: pb.DetokenizeRequest, labels: Sequence[CompleteLabels]) -> list[Segments]:
    """Of each chain. Raises InvalidStructure."""
    found = []
    for place, label in enumerate(labels):
        own = request.chains[place] if request.chains else pb.ChainLabels()
        if not own.segment_starts:
            if own.first_frames:
                raise InvalidStructure(f"chains[{place}].first_frames", "first_frames needs segment_starts")
            found.append(numbered_segments(label.residue_index))
            continue
        frames = None
        if own.first_frames:
            if len(own.first_frames) != _FRAME_BYTES * len(own.segment_starts):
                reason = f"{len(own.first_frames)} bytes do not fit {len(own.segment_starts)} segments"
                raise InvalidStructure(f"chains[{place}].first_frames", reason)
            frames = np.frombuffer(own.first_frames, "<f4").astype(np.float32).reshape(-1, 12)
        starts = np.fromiter(own.segment_starts, np.int64, len(own.segment_starts))
        try:
            found.append(checked_segments(starts, frames, len(label.residue_index)))
        except InvalidStructure as error:
            raise error.within(f"chains[{place}].") from error
    return found


def _frames(request: pb.DetokenizeRequest, sizes: Sequence[int]) -> NDArray[np.bool_] | None:
    """Which residues have a frame, (residues,) over all chains; None if no chain states it."""
    if not any(chain.has_frame for chain in request.chains):
        return None
    frames = []
    for place, (size, chain) in enumerate(zip(sizes, request.chains, strict=True)):
        given = np.fromiter(chain.has_frame, np.bool_, len(chain.has_frame)) if chain.has_frame else np.ones(size, bool)
        if len(given) != size:
            reason = f"has {len(given)} entries for {size} residues"
            raise InvalidStructure(f"chains[{place}].has_frame", reason, chain=chain.chain)
        frames.append(given)
    return np.concatenate(frames)


@contextmanager
def option_errors() -> Iterator[None]:
    """The tokenizer's option `format` is a field of the request's options."""
    try:
        yield
    except InvalidStructure as error:
        if error.field != "format":
            raise
        raise error.within("options.") from error


def read_options(request: pb.TokenizeRequest, limits: Limits, default: Reading) -> ReadOptions:
    """How to read a request's file; default: the reading if it names none.

    Raises InvalidStructure, with the field's whole path.
    """
    file = request.file
    if file.format not in _FORMATS:
        raise InvalidStructure("file.format", f"{file.format} is not a format")
    if len(file.chains) > limits.chains:
        raise InvalidStructure("file.chains", f"{len(file.chains)} names; at most {limits.chains} chains are taken")
    reading = reading_of(request, default) or default
    with file_errors():
        return ReadOptions(
            format=_FORMATS[file.format],
            model_number=file.model_number,
            chains=list(file.chains),
            reading=reading,
            min_plddt=file.min_plddt if file.HasField("min_plddt") else None,
            assembly=file.assembly,
            renumber=file.renumber,
            limits=limits,
        )


@contextmanager
def file_errors() -> Iterator[None]:
    """The tokenizer's fields are those of the request's file."""
    try:
        yield
    except InvalidStructure as error:
        raise error.within("file.") from error


def _unpacked(backbones: pb.Backbones, limits: Limits) -> list[Backbone]:
    chains: Sequence[pb.Backbone] = backbones.chains
    if not chains:
        raise InvalidStructure("backbones.chains", "no chains")
    _check_labels(chains, limits, "backbones.chains")
    residues = sum(len(chain.coordinates) for chain in chains) // _RESIDUE_BYTES
    if residues > limits.residues:
        raise InvalidStructure("backbones.chains", f"{residues} residues; at most {limits.residues} are taken")
    decoded_chains = []
    for place, chain in enumerate(chains):
        try:
            decoded_chains.append(_chain(chain))
        except InvalidStructure as error:
            raise error.within(f"backbones.chains[{place}].") from error
    return decoded_chains


def _check_labels(chains: Sequence[pb.Backbone] | Sequence[pb.ChainLabels], limits: Limits, field: str) -> None:
    """Check the number of chains and of their entries before anything is allocated. Raises InvalidStructure."""
    if len(chains) > limits.chains:
        raise InvalidStructure(field, f"{len(chains)} chains; at most {limits.chains} are taken")
    totals: Counter[str] = Counter()
    for place, chain in enumerate(chains):
        for name in ("sequence", "residue_index", "insertion_codes", "has_frame", "segment_starts"):
            totals[name] += len(getattr(chain, name, ""))
            if totals[name] > limits.residues:
                reason = f"{totals[name]} entries up to here; at most {limits.residues} residues are taken"
                raise InvalidStructure(f"{field}[{place}].{name}", reason)


def _chain(chain: pb.Backbone) -> Backbone:
    residues, rest = divmod(len(chain.coordinates), _RESIDUE_BYTES)
    if rest:
        raise InvalidStructure(
            "coordinates",
            f"{len(chain.coordinates)} bytes are not a multiple of {_RESIDUE_BYTES}, the size of a residue's",
            chain=chain.chain,
        )
    numbers = chain.residue_index
    return Backbone(
        chain=chain.chain,
        sequence=chain.sequence or "X" * residues,
        residue_index=(
            np.fromiter(numbers, np.int64, len(numbers)) if numbers else np.arange(1, residues + 1, dtype=np.int64)
        ),
        coordinates=np.frombuffer(chain.coordinates, "<f4").astype(np.float32).reshape(-1, 3, 3),
    )
