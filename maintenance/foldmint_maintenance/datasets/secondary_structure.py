"""Secondary structure by pydssp, in three DSSP letters: H, E and C.

Sets hold N, CA and C. The carbonyl oxygen, which hydrogen bonds need, is placed as in a planar peptide.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foldmint_maintenance.datasets.records import Record

# Å; of the carbonyl bond, and the longest bond from C to the next N that still counts as one.
_CARBONYL = 1.23
_LONGEST_BOND = 2.0
# pydssp looks for hydrogen bonds four residues away.
_SHORTEST = 6


def lettered(records: Iterable[Record]) -> Iterator[Record]:
    """The records, with pydssp's letters where they have none; `C` for residues without a result."""
    for record in records:
        yield record if record.dssp is not None else replace(record, dssp=letters(record.coordinates))


def letters(backbone: NDArray[np.floating]) -> str:
    """H, E or C of each residue of a backbone (residues, 3, 3), Å, NaN where missing.

    Each stretch of bonded residues is assigned on its own, so that sheets between stretches are missed.
    """
    found = np.full(len(backbone), "C")
    whole = np.isfinite(backbone).all((1, 2))
    bond = np.linalg.norm(backbone[1:, 0] - backbone[:-1, 2], axis=-1)
    goes_on = whole[1:] & whole[:-1] & (np.nan_to_num(bond, nan=np.inf) < _LONGEST_BOND)
    starts = np.concatenate([[0], 1 + np.flatnonzero(~goes_on)])
    for start, stop in zip(starts, [*starts[1:], len(backbone)], strict=True):
        if stop - start >= _SHORTEST:
            found[start:stop] = _assigned(backbone[start:stop].astype(np.float64))
    return "".join(found)


def _assigned(backbone: NDArray[np.float64]) -> NDArray[np.str_]:
    # A slow import, with torch and einops.
    import pydssp

    ca, c = backbone[:, 1], backbone[:, 2]
    onward = np.concatenate([backbone[1:, 0], c[-1:] + (c[-1:] - ca[-1:])]) - c
    out = -(_unit(ca - c) + _unit(onward))
    oxygen = c + _CARBONYL * _unit(np.where(np.linalg.norm(out, axis=1, keepdims=True) > 1e-6, out, 1.0))
    assigned = pydssp.assign(np.concatenate([backbone, oxygen[:, None]], 1), out_type="c3")
    return np.where(assigned == "-", "C", assigned)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float64)
