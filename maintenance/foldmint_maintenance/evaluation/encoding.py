"""Encoding of sets with a model's encoder: codes, distances and backbone fragments, a batch of residues at a time."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.evaluation.fragment_metrics import WindowMeans
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.engine import Engine

ReportResidues = Callable[[int], None]
"""Called with how many residues have been encoded or decoded since the last call."""


class Encoded(NamedTuple):
    """Residues with a frame: codes (rows,) int64, distances (rows,) float32, windows (rows, 9, 3, 3), Å, whole (rows,):
    whether all nine residues are there, letters (rows,) uint8 of DSSP, 0 where not known, vectors (rows, out).
    """

    codes: NDArray[np.int64]
    distances: NDArray[np.float32]
    windows: NDArray[np.float32]
    whole: NDArray[np.bool_]
    letters: NDArray[np.uint8]
    vectors: NDArray[np.float32]


def encoded(
    encoder: Encoder, embeddings: Tensor, data: PreparedSet, select: NDArray[np.integer], batch: int
) -> Iterator[Encoded]:
    """The rows `select` of a set, a batch at a time, in float32, as the tokenizer encodes. embeddings: (codes, out).

    Raises ModelError if a vector is not finite.
    """
    engine = Engine(encoder, embeddings.device)
    for start in range(0, len(select), batch):
        some = select[start : start + batch]
        z = engine.vectors(data.rows(some))
        codes, distances = engine.quantize(z, embeddings)
        windows = data.windows(some)
        yield Encoded(
            codes,
            distances,
            windows.positions,
            np.logical_and.reduce(windows.exists, 1),
            data.dssp[data.shape.queries[some]],
            z.cpu().numpy(),
        )


def windows_of_codes(
    encoder: Encoder,
    embeddings: Tensor,
    data: PreparedSet,
    residues: int = 400_000,
    seed: int = 0,
    batch: int = 1024,
    report: ReportResidues | None = None,
) -> NDArray[np.float32]:
    """The mean backbone window of each code (codes, 9, 3, 3), Å, over residues drawn at random; NaN for codes not hit.

    embeddings: (codes, out). residues: how many are drawn, each at most once; only those with a whole window count.
    """
    count = min(residues, len(data))
    drawn = np.sort(np.random.default_rng(seed).choice(len(data), count, replace=False))
    means = WindowMeans(len(embeddings))
    for part in encoded(encoder, embeddings, data, drawn, batch):
        means.add(part.windows[part.whole], part.codes[part.whole])
        if report is not None:
            report(len(part.codes))
    return means.windows()
