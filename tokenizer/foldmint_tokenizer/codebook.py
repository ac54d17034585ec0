"""The codebook: vectors of the codes, and the search for the nearest, in float32."""

from typing import NamedTuple

import torch
from torch import Tensor

# Rows at a time, which bound the distance matrix: at 4096 codes to 4 MiB, that stay in a CPU's cache, and to 64 MiB
# elsewhere.
_CHUNK = {"cpu": 256}
_CHUNK_ELSEWHERE = 4096


class Codebook(NamedTuple):
    """The state of a codebook, under the names of the published class.

    embeddings: (codes, out). N: (codes,), moving average of the hits of each code a step.
    z_avg: (codes, out), moving average of the sum of the vectors that hit it; embeddings = z_avg / N.
    """

    embeddings: Tensor
    N: Tensor
    z_avg: Tensor


def nearest_code(z: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest code of each vector.

    z: (rows, out); embeddings: (codes, out). Returns codes (rows,) int64 and their Euclidean distances (rows,)
    float32. Always computed in float32. A vector that is not finite has a distance that is not finite either.
    """
    z, embeddings = z.float(), embeddings.float()
    square = embeddings.square().sum(1)
    rows = _CHUNK.get(z.device.type, _CHUNK_ELSEWHERE)
    with torch.autocast(z.device.type, enabled=False):
        # |z|² is the same for all codes of a row, and left out.
        chunks = [_least(torch.addmm(square, chunk, embeddings.t(), alpha=-2)) for chunk in torch.split(z, rows)]
    code = torch.cat(chunks)
    # From the difference, not from |z|² - 2ze + |e|², which cancels.
    return code, (z - embeddings[code]).norm(dim=1)


def _least(apart: Tensor) -> Tensor:
    """Where each row of (rows, codes) is least, first. On a CPU by NumPy, whose search is vectorized."""
    if apart.device.type == "cpu":
        return torch.from_numpy(apart.detach().numpy().argmin(1))
    return apart.argmin(1)
