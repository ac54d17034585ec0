"""From backbones to rows for the encoder, and from the rows' codes back to tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.neighborhoods import OFFSET_LIMIT, Geometry, geometry, joined
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.vocabulary import BOS, CHAINBREAK, EOS


@dataclass(frozen=True)
class TokenizeOptions:
    """What to return.

    complex: neighbors are looked for across chains. special_tokens: enclose in BOS and EOS; of a complex, the chains'
    tokens one after another are the complex's, with CHAINBREAK before each further chain. distances: of each residue
    from its code.
    """

    complex: bool = False
    special_tokens: bool = False
    distances: bool = False


@dataclass(frozen=True)
class TokenizedChain:
    """The tokens of a chain.

    chain, sequence, residue_index (residues,), insertion_codes: as in `Backbone`. tokens: (residues,) int64, or more
    with special tokens. has_frame: (residues,) bool; the token of a residue without a frame says nothing but that.
    distances: (residues,) float32 from vector to code, NaN without a frame; None unless asked for.
    """

    chain: str
    sequence: str
    residue_index: NDArray[np.int64]
    insertion_codes: str
    tokens: NDArray[np.int64]
    has_frame: NDArray[np.bool_]
    distances: NDArray[np.float32] | None = None


def structure_geometry(backbones: Sequence[Backbone], complex: bool = False) -> Geometry:  # noqa: A002
    """The rows of a structure: of its chains each alone, or of all as one complex.

    In a complex the chains' numbers are moved apart so far that no two residues of different chains look like
    neighbors in sequence: their offsets are all clipped.
    """
    if not complex:
        return joined([geometry(chain.coordinates, chain.residue_index) for chain in backbones])
    indices: list[NDArray[np.int64]] = []
    end = 0
    for chain in backbones:
        low, high = int(chain.residue_index.min()), int(chain.residue_index.max())
        indices.append(chain.residue_index - low + end)
        end += high - low + OFFSET_LIMIT + 1
    return geometry(np.concatenate([chain.coordinates for chain in backbones]), np.concatenate(indices))


def assembled(
    backbones: Sequence[Backbone],
    shape: Geometry,
    codes: NDArray[np.int64],
    distances: NDArray[np.float32],
    frameless: int,
    options: TokenizeOptions,
) -> list[TokenizedChain]:
    """The tokenized chains.

    shape: what `structure_geometry` made of the backbones. codes, distances: (rows,), of its rows. frameless: the code
    of residues without a frame.
    """
    residues = len(shape.residue_index)
    tokens = np.full(residues, frameless, np.int64)
    tokens[shape.queries] = codes
    apart = np.full(residues, np.nan, np.float32)
    apart[shape.queries] = distances
    ends = np.cumsum([len(chain) for chain in backbones])
    chains = []
    for place, (chain, end) in enumerate(zip(backbones, ends, strict=True)):
        part = slice(end - len(chain), end)
        first, last = place == 0, place == len(backbones) - 1
        chains.append(
            TokenizedChain(
                chain.chain,
                chain.sequence,
                chain.residue_index,
                chain.insertion_codes,
                _enclosed(tokens[part], options, first, last) if options.special_tokens else tokens[part],
                shape.frames.exists[part],
                apart[part] if options.distances else None,
            )
        )
    return chains


def _enclosed(tokens: NDArray[np.int64], options: TokenizeOptions, first: bool, last: bool) -> NDArray[np.int64]:
    before = CHAINBREAK if options.complex and not first else BOS
    after = [] if options.complex and not last else [EOS]
    return np.concatenate([[before], tokens, after]).astype(np.int64)
