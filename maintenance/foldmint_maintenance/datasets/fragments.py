"""Backbone fragments: the nine residues around each residue, in its frame."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.neighborhoods import Geometry

REACH = 4
WINDOW = 2 * REACH + 1


class Fragments(NamedTuple):
    """positions: (rows, 9, 3, 3) float32: place, atom (N, CA, C), axis; Å. exists: (rows, 9) bool."""

    positions: NDArray[np.float32]
    exists: NDArray[np.bool_]


def backbone_fragments(
    backbone: NDArray[np.float32], chain: NDArray[np.integer], shape: Geometry, select: slice | NDArray[np.integer]
) -> Fragments:
    """Windows of the rows shape.queries[select].

    backbone: (residues, 3, 3), Å, of one or many chains; chain: (residues,), which chain a residue is of. A place is
    filled if its residue has a frame, is of the same chain, and its residue_index is as far away as its place says:
    nothing is taken from across a gap. Missing places are zero.
    """
    query = shape.queries[select]
    steps = np.arange(-REACH, REACH + 1)
    around = query[:, None] + steps
    inside = (around >= 0) & (around < len(backbone))
    around = np.where(inside, around, query[:, None])
    exists = (
        inside
        & shape.frames.exists[around]
        & (chain[around] == chain[query, None])
        & (shape.residue_index[around] - shape.residue_index[query, None] == steps)
    )
    apart = backbone[around].astype(np.float64) - backbone[query, 1].astype(np.float64)[:, None, None]
    local = apart.reshape(len(query), -1, 3) @ shape.frames.rotation[query]
    local = np.where(exists[..., None, None], local.reshape(-1, WINDOW, 3, 3), 0)
    return Fragments(local.astype(np.float32), exists)
