"""Neighborhoods: the 16 nearest residues of each residue with a frame, in that residue's frame."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.frames import Frames, backbone_frames
from foldmint_tokenizer.kernels import geometry as kernels
from foldmint_tokenizer.structure.backbone import Backbone

NEIGHBORS = 16
OFFSET_LIMIT = 32
OFFSETS = 2 * OFFSET_LIMIT + 2  # row 0 of the embedding is for padding and never looked up
# Residues of a chain that are all compared with all, which is faster than a tree.
_COMPARED = 4096
# Residues that may share a place, or one coordinate, without slowing the tree down.
_FEW = 64
# Residues a query of the tree: distances and indices of all residues at once would dominate the memory.
_QUERY_CHUNK = 4096


class Neighborhoods(NamedTuple):
    """The encoder's input, one row a residue; rows of any number of chains may be concatenated or sliced.

    rotation: (rows, 16, 3, 3) float32, the neighbors' axes in the row's frame.
    origin: (rows, 16, 3) float32, Å, the neighbors' CA in the row's frame.
    offset: (rows, 16) int64, 1 to 65: clipped difference in residue_index, plus 33.
    exists: (rows, 16) bool, false where the chain has fewer residues than neighbors.
    """

    rotation: NDArray[np.float32]
    origin: NDArray[np.float32]
    offset: NDArray[np.int64]
    exists: NDArray[np.bool_]

    def part(self, start: int, stop: int) -> "Neighborhoods":
        """A view of the rows from start to stop."""
        some = slice(start, stop)
        return Neighborhoods(self.rotation[some], self.origin[some], self.offset[some], self.exists[some])


class Geometry(NamedTuple):
    """Frames and neighbors of the residues of a structure, from which neighborhoods are computed slice by slice.

    frames: of all residues. residue_index: (residues,). queries: (queries,), the residues with a frame. nearest:
    (queries, 16) int32, residues by distance, the query first; -1 where there are no more.
    """

    frames: Frames
    residue_index: NDArray[np.int64]
    queries: NDArray[np.int64]
    nearest: NDArray[np.int32]

    def rows(self, select: slice | NDArray[np.integer]) -> Neighborhoods:
        """The neighborhoods of queries[select]."""
        query, nearest = self.queries[select], self.nearest[select]
        shape = nearest.shape
        rows = Neighborhoods(
            np.empty((*shape, 3, 3), np.float32),
            np.empty((*shape, 3), np.float32),
            np.empty(shape, np.int64),
            np.empty(shape, np.bool_),
        )
        rotation, origin, _ = self.frames
        kernels.neighborhoods(rotation, origin, self.residue_index, query, nearest, OFFSET_LIMIT, *rows)
        return rows


def build_geometry(backbone: NDArray[np.floating], residue_index: NDArray[np.integer]) -> Geometry:
    """Frames and nearest neighbors of a backbone (residues, 3, 3), Å, with residue_index (residues,).

    Neighbors are the residues with a frame that are nearest by CA distance, in float64, the residue itself first.
    Residues without a frame are never neighbors: attention gives them no weight. (ESM3 lists them last and masks them,
    which is equivalent.)
    """
    frames = backbone_frames(backbone)
    queries = np.flatnonzero(frames.exists)
    return Geometry(frames, np.asarray(residue_index, np.int64), queries, _nearest(frames, queries))


def _nearest(frames: Frames, queries: NDArray[np.int64]) -> NDArray[np.int32]:
    nearest = np.full((len(queries), NEIGHBORS), -1, np.int32)
    if len(queries) == 0:
        return nearest
    ca = frames.origin[queries]
    wanted = min(NEIGHBORS, len(queries))
    if len(queries) <= _COMPARED:
        compared = np.empty((len(queries), wanted), np.int32)
        kernels.nearest(ca, compared)
        nearest[:, :wanted] = queries[compared]
        return nearest
    # Imported here: few chains are so long, and scipy would make each start slower.
    from scipy.spatial import KDTree

    kept = _thinned(ca)
    tree = KDTree(ca[kept])
    for start in range(0, len(queries), _QUERY_CHUNK):
        own = np.arange(start, min(start + _QUERY_CHUNK, len(queries)))
        _, neighbors = tree.query(ca[own], k=np.arange(1, wanted + 1))
        found: NDArray[np.int64] = kept[np.asarray(neighbors, np.int64)]  # (chunk, wanted)
        # If another residue has exactly the same CA, the tree may list it first: move the query to the front.
        wrong = np.flatnonzero(found[:, 0] != own)
        found[wrong] = _query_first(found[wrong], own[wrong])
        nearest[own, :wanted] = queries[found]
    return nearest


def _thinned(ca: NDArray[np.float64]) -> NDArray[np.int64]:
    """The residues that go into the tree: all, except that of many in one place only as many as a residue has
    neighbors.

    A tree cannot split points in one place, and would compare all with all. Which of them become neighbors does not
    matter, since all are equally near.
    """
    indices = np.arange(len(ca))
    if len(ca) <= _FEW or np.unique(ca[:, 0], return_counts=True)[1].max() <= _FEW:
        return indices
    order = np.lexsort(ca.T)
    new = np.concatenate([[True], (ca[order][1:] != ca[order][:-1]).any(1)])
    rank = indices - np.maximum.accumulate(np.where(new, indices, 0))  # among the residues in the same place
    return np.sort(order[rank <= NEIGHBORS])


def _query_first(found: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """The neighbors (queries, wanted) with each query moved to the front."""
    others = found != own[:, None]
    # Sort the query last, the others in their order.
    order = np.argsort(~others, axis=1, kind="stable")
    return np.concatenate([own[:, None], np.take_along_axis(found, order, 1)[:, :-1]], 1)


def structure_geometry(backbones: Sequence[Backbone], complex: bool = False) -> Geometry:  # noqa: A002
    """The encoder's input for a structure: each chain alone, or all chains as one complex.

    In a complex, the residue numbers of different chains are shifted apart by more than the clipping limit, so that no
    two residues of different chains appear to be close in sequence.
    """
    if not complex:
        return join_geometries([build_geometry(chain.coordinates, chain.residue_index) for chain in backbones])
    indices: list[NDArray[np.int64]] = []
    end = 0
    for chain in backbones:
        low, high = int(chain.residue_index.min()), int(chain.residue_index.max())
        indices.append(chain.residue_index - low + end)
        end += high - low + OFFSET_LIMIT + 1
    return build_geometry(np.concatenate([chain.coordinates for chain in backbones]), np.concatenate(indices))


def join_geometries(parts: Sequence[Geometry]) -> Geometry:
    """Concatenate chains whose residues have neighbors in their own chain only."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.residue_index) for part in parts)])[:-1]
    placed = list(zip(parts, starts, strict=True))
    return Geometry(
        Frames(*(np.concatenate(column) for column in zip(*(part.frames for part in parts), strict=True))),
        np.concatenate([part.residue_index for part in parts]),
        np.concatenate([part.queries + start for part, start in placed]),
        np.concatenate([np.where(part.nearest < 0, -1, part.nearest + start) for part, start in placed]).astype(
            np.int32
        ),
    )


def concatenate(parts: Sequence[Neighborhoods]) -> Neighborhoods:
    """Concatenate rows of several chains."""
    if len(parts) == 1:
        return parts[0]
    return Neighborhoods(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def dummy_rows(count: int) -> Neighborhoods:
    """Rows without meaning, each of them finite."""
    shape = (count, NEIGHBORS)
    return Neighborhoods(
        np.broadcast_to(np.eye(3, dtype=np.float32), (*shape, 3, 3)).copy(),
        np.zeros((*shape, 3), np.float32),
        np.full(shape, OFFSET_LIMIT + 1, np.int64),
        np.ones(shape, np.bool_),
    )


def padded(rows: Neighborhoods, count: int) -> Neighborhoods:
    """The rows, padded with dummy rows to `count`."""
    missing = count - len(rows.offset)
    return concatenate([rows, dummy_rows(missing)]) if missing else rows
