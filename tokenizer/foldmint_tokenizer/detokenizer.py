"""From structure tokens back to backbones, with how far to trust them; in process, with no server.

StructureDetokenizer.load().detokenize(tokens)
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from foldmint_tokenizer.decoder import AlignedError, aligned_error, backbone_atoms
from foldmint_tokenizer.errors import InvalidTokens, ModelError
from foldmint_tokenizer.model import CodebookVersion, Model
from foldmint_tokenizer.store import load_model
from foldmint_tokenizer.vocabulary import BOS, CHAINBREAK, EOS, MASK, PAD

_NAMES = {MASK: "MASK", EOS: "EOS", BOS: "BOS", PAD: "PAD", CHAINBREAK: "CHAINBREAK"}


@dataclass(frozen=True, eq=False)
class DecodedChain:
    """The backbone of one chain.

    coordinates: (residues, 3, 3) float32: residue, atom (N, CA, C), axis; Å; all chains of a structure in one frame of
    reference. plddt: (residues,) float32, 0 to 1, the lDDT that the decoder expects of each residue. Both are NaN for
    residues that were said to have no frame.
    """

    coordinates: NDArray[np.float32]
    plddt: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.coordinates)


@dataclass(frozen=True, eq=False)
class DecodedStructure:
    """What tokens stand for.

    ptm: the TM-score that the decoder expects, 0 to 1, of the residues with a frame; NaN if there are none. pae:
    (residues, residues) float32, Å, over all chains: expected error of the column's residue seen from the row's, NaN
    for residues without a frame; None unless asked for.
    """

    chains: tuple[DecodedChain, ...]
    ptm: float
    pae: NDArray[np.float32] | None = None


class StructureDetokenizer:
    """A model's decoder on a device. Not safe for use by several threads at a time."""

    def __init__(self, model: Model, device: torch.device | str = "cpu") -> None:
        """Raises ModelError if the model has no decoder."""
        if model.decoder is None:
            raise ModelError(f"the model {model.name} has no decoder")
        self.model, self.device = model, torch.device(device)
        self._decoder = model.decoder.to(self.device).eval()
        self._embedding = self.embedding_of(model.codebook)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, *, device: torch.device | str = "cpu"
    ) -> "StructureDetokenizer":
        """The detokenizer of a store, or of the embedded default model. Raises ModelError if it cannot be used."""
        return cls(load_model(path), device)

    def embedding_of(self, codebook: CodebookVersion) -> Tensor:
        """What the decoder reads of each token of a version of the codebook (vocabulary, width), on the device."""
        return codebook.embedding(self._decoder)

    def detokenize(
        self,
        tokens: ArrayLike | Sequence[int],
        *,
        has_frame: ArrayLike | Sequence[bool] | None = None,
        pae: bool = False,
        embedding: Tensor | None = None,
    ) -> DecodedStructure:
        """The backbones of a structure's tokens (length,): its chains with CHAINBREAK between them.

        BOS before and EOS after are taken, and put there where they are not. has_frame: (residues,) bool, over all
        chains, as `TokenizedChain` tells: the tokens of residues without a frame say nothing, and become gaps; None
        decodes all. pae: return the aligned errors, whose memory grows with the square of the residues. embedding: of
        another version of the codebook than the model's. Raises InvalidTokens, with the position, for tokens that are
        none or stand in a place where they make no sense, and if has_frame does not fit to them; ModelError if the
        decoder computes what is not finite.
        """
        sequence = checked_tokens(tokens, self.model.config.codes)
        residue = np.flatnonzero(sequence < MASK)
        framed = checked_frames(has_frame, len(residue))
        kept = residue[framed]
        with torch.inference_mode():
            ids = torch.from_numpy(sequence).to(self.device)
            read = F.embedding(ids, self._embedding if embedding is None else embedding)
            states = self._decoder.states(read[None])
            atoms = backbone_atoms(self._decoder.rigids(states))[0].cpu().numpy()
            plddt = self._decoder.confidence(states)[0].cpu().numpy()
            errors = None
            if len(kept):
                errors = aligned_error(self._decoder, states[0], torch.from_numpy(kept).to(self.device))
        ptm = math.nan if errors is None else float(errors.ptm)  # NaN if an aligned error is
        finite = np.isfinite(atoms[kept]).all() and np.isfinite(plddt[kept]).all()
        if not finite or (errors is not None and math.isnan(ptm)):
            raise ModelError("the decoder computed a position or a confidence that is not finite")
        atoms[residue[~framed]] = plddt[residue[~framed]] = np.nan
        breaks = np.flatnonzero(sequence == CHAINBREAK)
        chains = [
            DecodedChain(atoms[start:end], plddt[start:end])
            for start, end in zip([1, *(breaks + 1)], [*breaks, len(sequence) - 1], strict=True)
        ]
        return DecodedStructure(tuple(chains), ptm, _spread(errors, framed) if pae else None)


def _spread(errors: AlignedError | None, framed: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Aligned errors of the residues with a frame, in their places among all (residues, residues)."""
    if errors is not None and framed.all():
        return errors.pae.cpu().numpy()
    spread = np.full((len(framed), len(framed)), np.nan, np.float32)
    if errors is not None:
        spread[np.ix_(framed, framed)] = errors.pae.cpu().numpy()
    return spread


def checked_frames(has_frame: ArrayLike | Sequence[bool] | None, residues: int) -> NDArray[np.bool_]:
    """Which of so many residues have a frame, (residues,); None: all. Raises InvalidTokens if it does not fit."""
    if has_frame is None:
        return np.ones(residues, np.bool_)
    framed = np.asarray(has_frame)
    if framed.shape != (residues,) or framed.dtype != np.bool_:
        raise InvalidTokens(
            f"has_frame is {framed.dtype} of shape {framed.shape}; true or false for each of {residues} residues is "
            "wanted"
        )
    return framed


def checked_tokens(tokens: ArrayLike | Sequence[int], codes: int) -> NDArray[np.int64]:
    """The tokens of a structure from BOS to EOS, int64, each in its place; codes: how many the model has.

    Raises InvalidTokens if a chain is empty, a token is no code, or a special one stands where it makes no sense.
    """
    try:
        given = np.asarray(tokens)
    except ValueError as error:
        raise InvalidTokens(f"there is no array in them: {error}") from error
    if given.ndim != 1:
        raise InvalidTokens(f"the shape is {given.shape}; (length,) is wanted")
    if given.size and not np.issubdtype(given.dtype, np.integer):
        raise InvalidTokens(f"the type is {given.dtype}; integers are wanted")
    if given.size == 0:
        raise InvalidTokens("there is no token")
    own = given.astype(np.int64)
    before, after = int(own[0] == BOS), int(own[-1] == EOS)
    inner = own[before : len(own) - after]
    wrong = ((inner < 0) | (inner >= codes)) & (inner != CHAINBREAK)  # beyond int64 is below zero
    if wrong.any():
        at = int(wrong.argmax())
        token = int(given[at + before])
        if token in _NAMES:
            raise InvalidTokens(f"{token} ({_NAMES[token]}) stands among the residues", at + before)
        raise InvalidTokens(f"{token} is no token; codes are 0 to {codes - 1}", at + before)
    breaks = np.flatnonzero(inner == CHAINBREAK)
    empty = np.flatnonzero(np.diff([-1, *breaks, len(inner)]) < 2)
    if empty.size:
        at = [0, *(breaks + 1)][int(empty[0])]
        raise InvalidTokens("a chain without residues", min(at + before, len(own) - 1))
    return np.concatenate([[BOS], inner, [EOS]])
