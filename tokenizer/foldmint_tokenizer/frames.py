"""Backbone frames: a rotation and an origin for each residue, by Gram-Schmidt."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.kernels import geometry as kernels

# Added to squared norms, as ESM3 does; far below any bond length (1.3 Å and more).
_EPSILON = 1e-10
# Å; minimum distance of N from the line through CA and C, and minimum length of CA-C; below them the axes
# would be rounding errors. Real backbones have about 1.4 and 1.5.
_SHORTEST = 1e-3


class Frames(NamedTuple):
    """The frames of a chain.

    rotation: (residues, 3, 3), columns are the axes; identity where there is no frame.
    origin: (residues, 3), Å; the CA positions, zero where there is no frame.
    exists: (residues,) bool.
    """

    rotation: NDArray[np.float64]
    origin: NDArray[np.float64]
    exists: NDArray[np.bool_]

    def part(self, some: slice) -> "Frames":
        """A view of the frames of some residues."""
        return Frames(self.rotation[some], self.origin[some], self.exists[some])


def backbone_frames(backbone: NDArray[np.floating]) -> Frames:
    """Frames of a backbone (residues, 3, 3): residue, atom (N, CA, C), axis; Å, NaN where missing.

    The x axis runs along CA - C, N lies in the xy plane, and the origin is CA (ESM3, appendix A.1.6). A residue has no
    frame if one of the three atoms is missing or not finite, or if all three lie on one line. Computed in float64
    whatever the input's type, so that a structure far from the origin loses no precision.
    """
    positions = np.ascontiguousarray(backbone, np.float64)
    count = len(positions)
    found = Frames(np.empty((count, 3, 3)), np.empty((count, 3)), np.empty(count, np.bool_))
    kernels.frames(positions, _EPSILON, _SHORTEST, *found)
    return found
