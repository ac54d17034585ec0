"""From structure tokens back to backbones, with confidence; in process, without a server.

StructureDetokenizer.load().detokenize(tokens)
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from foldmint_tokenizer.decoder import AlignedError, Decoder, Rigids, aligned_error, backbone_atoms
from foldmint_tokenizer.errors import InvalidStructure, InvalidTokens, ModelError
from foldmint_tokenizer.model import CodebookVersion, Model
from foldmint_tokenizer.motion.assignment import Assignment
from foldmint_tokenizer.motion.motion_decoder import MotionDecoder
from foldmint_tokenizer.motion.motions import Layout, Segments, code_motions, parted, placed, whole_chain
from foldmint_tokenizer.store.model_store import load_model
from foldmint_tokenizer.vocabulary import BOS, CHAINBREAK, EOS, MASK, PAD

_NAMES = {MASK: "MASK", EOS: "EOS", BOS: "BOS", PAD: "PAD", CHAINBREAK: "CHAINBREAK"}


@dataclass(frozen=True, eq=False)
class DecodedChain:
    """The backbone of one chain.

    coordinates: (residues, 3, 3) float32: residue, atom (N, CA, C), axis; Å; all chains of a structure in one
    coordinate system. plddt: (residues,) float32, 0 to 1, the predicted lDDT of each residue. Both are NaN for residues
    declared to have no frame. segment_starts: (segments,) int64, the first residue of each segment. placed: (segments,)
    bool, whether a segment has the position that it had in its structure, relative to the other placed ones; otherwise
    it follows the previous residue as if bonded.
    """

    coordinates: NDArray[np.float32]
    plddt: NDArray[np.float32]
    segment_starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    placed: NDArray[np.bool_] = field(default_factory=lambda: np.ones(1, np.bool_))

    def __len__(self) -> int:
        return len(self.coordinates)


@dataclass(frozen=True, eq=False)
class DecodedStructure:
    """A decoded structure.

    ptm: predicted TM-score of the residues with a frame, 0 to 1; NaN if there are none. pae: (residues, residues)
    float32, Å, over all chains: expected error of the column's residue in the row's frame, NaN for residues without a
    frame; None unless requested.
    """

    chains: tuple[DecodedChain, ...]
    ptm: float
    pae: NDArray[np.float32] | None = None


class DecoderInputs(NamedTuple):
    """A decoder's inputs for one version of the codebook, on its device.

    embedding: (vocabulary, width), of each token. motions: (codes,), if the codes encode motions.
    """

    embedding: Tensor
    motions: Rigids | None


class StructureDetokenizer:
    """A model's decoder on a device. Not thread-safe."""

    def __init__(self, model: Model, device: torch.device | str = "cpu") -> None:
        """Raises ModelError if the model has no decoder."""
        if model.decoder is None:
            raise ModelError(f"the model {model.name} has no decoder")
        self.model, self.device = model, torch.device(device)
        self._decoder = model.decoder.to(self.device).eval()
        self._inputs = self.inputs_of(model.codebook)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, *, device: torch.device | str = "cpu"
    ) -> "StructureDetokenizer":
        """Load the model of a store, by default the embedded one. Raises ModelError if it cannot be used."""
        return cls(load_model(path), device)

    def inputs_of(self, codebook: CodebookVersion) -> DecoderInputs:
        """The decoder's inputs for a version of the codebook."""
        motions = None
        with torch.autocast(self.device.type, enabled=False):
            if isinstance(self._decoder, MotionDecoder) and self.model.lever is not None:
                found = code_motions(codebook.codebook.embeddings, self.model.lever)
                motions = Rigids(*(part.to(self.device) for part in found))
            return DecoderInputs(codebook.embedding(self._decoder), motions)

    def detokenize(
        self,
        tokens: ArrayLike | Sequence[int],
        *,
        has_frame: ArrayLike | Sequence[bool] | None = None,
        pae: bool = False,
        inputs: DecoderInputs | None = None,
        assignment: Assignment = Assignment.INDEPENDENT,
        segments: Sequence[Segments] | None = None,
    ) -> DecodedStructure:
        """Decode the tokens (length,) of a structure: its chains, separated by CHAINBREAK.

        BOS and EOS around them are optional. has_frame: (residues,) bool, over all chains, as in `TokenizedChain`:
        residues without a frame become gaps, since their tokens carry no information; None decodes all. pae: return the
        aligned errors, whose memory grows with the square of the residues. inputs: those of another version of the
        codebook than the model's. assignment: how the tokens were chosen. segments: for each chain, where composition
        restarts, and with which frame; by default each chain is one segment.

        Raises InvalidTokens, with the position, for an unknown or misplaced token, and if has_frame does not match the
        tokens; InvalidStructure if there is not one entry of segments a chain; ModelError if a result is not finite, or
        if the codes do not encode motions and the tokens are anchored or tracking ones or have first frames.
        """
        sequence = checked_tokens(tokens, self.model.config.codes)
        residue = np.flatnonzero(sequence < MASK)
        framed = checked_frames(has_frame, len(residue))
        kept = residue[framed]
        breaks = np.flatnonzero(sequence == CHAINBREAK)
        bounds = list(zip([1, *(breaks + 1)], [*breaks, len(sequence) - 1], strict=True))
        read = self._inputs if inputs is None else inputs
        layout = _layout([stop - start for start, stop in bounds], segments, framed)
        if read.motions is None:
            self._check_without_motions(assignment, layout)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            ids = torch.from_numpy(sequence).to(self.device)
            states = self._states(F.embedding(ids, read.embedding)[None], assignment)
            atoms = np.zeros((len(sequence), 3, 3), np.float32)
            atoms[residue] = backbone_atoms(self._rigids(ids, states, residue, read, assignment, layout)).cpu().numpy()
            plddt = self._decoder.confidence(states)[0].cpu().numpy()
            errors = None
            if len(kept):
                head = self._decoder.pairwise_classification_head
                errors = aligned_error(head, states[0], torch.from_numpy(kept).to(self.device))
        ptm = math.nan if errors is None else float(errors.ptm)  # NaN if an aligned error is NaN
        finite = np.isfinite(atoms[kept]).all() and np.isfinite(plddt[kept]).all()
        if not finite or (errors is not None and math.isnan(ptm)):
            raise ModelError("the decoder computed a position or a confidence that is not finite")
        atoms[residue[~framed]] = plddt[residue[~framed]] = np.nan
        placed_segments = layout.placed if read.motions is not None else np.ones(len(layout.starts), np.bool_)
        places = np.searchsorted(residue, [start for start, _ in bounds])
        ends = np.append(places[1:], len(residue))
        chains = [
            DecodedChain(atoms[start:stop], plddt[start:stop], layout.starts[own] - first, placed_segments[own])
            for (start, stop), first, own in zip(
                bounds,
                places,
                [(layout.starts >= first) & (layout.starts < end) for first, end in zip(places, ends, strict=True)],
                strict=True,
            )
        ]
        return DecodedStructure(tuple(chains), ptm, _spread(errors, framed) if pae else None)

    def _check_without_motions(self, assignment: Assignment, layout: Layout) -> None:
        if assignment is not Assignment.INDEPENDENT:
            raise ModelError(f"the codes of {self.model.name} do not encode motions: it has no {assignment} tokens")
        if not np.isnan(layout.frames).all():
            raise ModelError(
                f"the codes of {self.model.name} do not encode motions: first frames cannot place segments"
            )

    def _states(self, embedded: Tensor, assignment: Assignment) -> Tensor:
        if isinstance(self._decoder, MotionDecoder):
            return self._decoder.states(embedded, assigned=assignment is not Assignment.INDEPENDENT)
        return self._decoder.states(embedded)

    def _rigids(
        self,
        ids: Tensor,
        states: Tensor,
        residue: NDArray[np.int64],
        read: DecoderInputs,
        assignment: Assignment,
        layout: Layout,
    ) -> Rigids:
        """Frames (residues,) of the residues among the tokens (length,)."""
        some = torch.from_numpy(residue).to(self.device)
        if isinstance(self._decoder, Decoder):
            whole = self._decoder.rigids(states)
            return Rigids(whole.rotation[0, some], whole.origin[0, some])
        assert read.motions is not None  # noqa: S101 (for types; a motion decoder's store has a lever arm)
        motions = Rigids(*(part[ids[some]] for part in read.motions))
        if assignment is Assignment.INDEPENDENT and self._decoder.config.corrections:
            motions = self._decoder.corrected(motions, states[0, some])
        return placed(motions, layout)


def _spread(errors: AlignedError | None, framed: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The aligned errors, with NaN for residues without a frame, (residues, residues)."""
    if errors is not None and framed.all():
        return errors.pae.cpu().numpy()
    spread = np.full((len(framed), len(framed)), np.nan, np.float32)
    if errors is not None:
        spread[np.ix_(framed, framed)] = errors.pae.cpu().numpy()
    return spread


def checked_frames(has_frame: ArrayLike | Sequence[bool] | None, residues: int) -> NDArray[np.bool_]:
    """Which residues have a frame, (residues,); all if None. Raises InvalidTokens if the shape or type is wrong."""
    if has_frame is None:
        return np.ones(residues, np.bool_)
    framed = np.asarray(has_frame)
    if framed.shape != (residues,) or framed.dtype != np.bool_:
        raise InvalidTokens(
            f"has_frame has type {framed.dtype} and shape {framed.shape}, expected bool and ({residues},)"
        )
    return framed


def _layout(sizes: list[int], segments: Sequence[Segments] | None, framed: NDArray[np.bool_]) -> Layout:
    if segments is None:
        segments = [whole_chain() for _ in sizes]
    if len(segments) != len(sizes):
        raise InvalidStructure("chains", f"there are segments for {len(segments)} chains, but tokens of {len(sizes)}")
    for place, (size, own) in enumerate(zip(sizes, segments, strict=True)):
        if own.starts[-1] >= size:
            raise InvalidStructure(f"chains[{place}].segment_starts", f"{own.starts[-1]} is beyond {size} residues")
    parts = np.split(framed, np.cumsum(sizes)[:-1])
    return Layout.of([parted(own, part) for own, part in zip(segments, parts, strict=True)], sizes)


def checked_tokens(tokens: ArrayLike | Sequence[int], codes: int) -> NDArray[np.int64]:
    """The tokens of a structure, int64, enclosed in BOS and EOS. codes: number of the model's codes.

    Raises InvalidTokens if a chain is empty, a token is not a code, or a special token is misplaced.
    """
    try:
        given = np.asarray(tokens)
    except ValueError as error:
        raise InvalidTokens(f"not an array: {error}") from error
    if given.ndim != 1:
        raise InvalidTokens(f"the shape is {given.shape}, expected (length,)")
    if given.size and not np.issubdtype(given.dtype, np.integer):
        raise InvalidTokens(f"the type is {given.dtype}, expected integers")
    if given.size == 0:
        raise InvalidTokens("there are no tokens")
    own = given.astype(np.int64)
    before, after = int(own[0] == BOS), int(own[-1] == EOS)
    inner = own[before : len(own) - after]
    wrong = ((inner < 0) | (inner >= codes)) & (inner != CHAINBREAK)  # values beyond int64 wrap below zero
    if wrong.any():
        at = int(wrong.argmax())
        token = int(given[at + before])
        if token in _NAMES:
            raise InvalidTokens(f"{token} ({_NAMES[token]}) is not allowed among the residues", at + before)
        raise InvalidTokens(f"{token} is not a token; codes are 0 to {codes - 1}", at + before)
    breaks = np.flatnonzero(inner == CHAINBREAK)
    empty = np.flatnonzero(np.diff([-1, *breaks, len(inner)]) < 2)
    if empty.size:
        at = [0, *(breaks + 1)][int(empty[0])]
        raise InvalidTokens("a chain without residues", min(at + before, len(own) - 1))
    return np.concatenate([[BOS], inner, [EOS]])
