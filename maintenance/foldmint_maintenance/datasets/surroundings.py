"""Environment of a residue: number of neighbors, on which side, and contact order."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldmint_maintenance.datasets.records import PreparedSet

BURIAL_RADIUS = 12.0
"""Å; CA within it count as neighbors."""

CONTACT_RADIUS = 8.0
"""Å; CA within it, three residues or more away in the chain, are in contact."""

# Rough direction of C-beta in a residue's frame.
_BETA = np.array([0.55, -0.76, 1.2])


class Surroundings(NamedTuple):
    """Of residues: neighbors (residues,) within 12 Å; above (residues,): those on the side of C-beta; order
    (residues,): mean distance in sequence of the residues in contact, 0 without one. All float32.
    """

    neighbors: NDArray[np.float32]
    above: NDArray[np.float32]
    order: NDArray[np.float32]


def surroundings(data: PreparedSet, advance: Callable[[int], None] = lambda _: None) -> Surroundings:
    """Of all residues of a set, chain by chain; zero for residues without a frame.

    advance: called with how many more residues are done.
    """
    total = len(data.chain)
    found = Surroundings(*(np.zeros(total, np.float32) for _ in Surroundings._fields))
    rotation, origin, exists = data.shape.frames
    for part in _chains(data.chain):
        some = part.start + np.flatnonzero(exists[part])
        place = origin[some].astype(np.float32)
        beta = (rotation[some] @ _BETA).astype(np.float32)
        square = (place * place).sum(1)
        apart = square[:, None] + square[None] - 2 * place @ place.T
        near = apart < BURIAL_RADIUS**2
        np.fill_diagonal(near, val=False)
        along = beta @ place.T - (beta * place).sum(1)[:, None]
        separation = np.abs(some[:, None] - some[None]).astype(np.float32)
        contact = (apart < CONTACT_RADIUS**2) & (separation >= 3)
        found.neighbors[some] = near.sum(1)
        found.above[some] = (near & (along > 0)).sum(1)
        found.order[some] = (separation * contact).sum(1) / np.maximum(contact.sum(1), 1)
        advance(part.stop - part.start)
    return found


def _chains(chain: NDArray[np.integer]) -> Iterator[slice]:
    starts = np.flatnonzero(np.diff(chain, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(chain)], strict=True):
        yield slice(int(start), int(stop))
