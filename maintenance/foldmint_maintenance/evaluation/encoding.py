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
    """A batch of residues with a frame.

    codes: (rows,) int64. distances: (rows,) float32, to the codes. windows: (rows, 9, 3, 3), backbone fragments, Å.
    whole: (rows,), whether all nine residues exist. letters: (rows,) uint8, of DSSP, 0 if unknown.
    vectors: (rows, out).
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
    """Encode the rows `select` of a set in batches, in float32, as the tokenizer does. embeddings: (codes, out).

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
    """Mean backbone fragment of each code (codes, 9, 3, 3), Å, over a random sample; NaN for codes without hits.

    embeddings: (codes, out). residues: size of the sample, of which residues with a complete fragment count.
    """
    count = min(residues, len(data))
    drawn = np.sort(np.random.default_rng(seed).choice(len(data), count, replace=False))
    means = WindowMeans(len(embeddings))
    for part in encoded(encoder, embeddings, data, drawn, batch):
        means.add(part.windows[part.whole], part.codes[part.whole])
        if report is not None:
            report(len(part.codes))
    return means.windows()
