"""The codebook: the codes' vectors, and nearest-code search in float32."""

from typing import NamedTuple

import torch
from torch import Tensor

# Vectors a chunk, which bounds the distance matrix: at 4096 codes, 4 MiB on a CPU, so that it stays in the cache, and
# 64 MiB elsewhere.
_CHUNK = {"cpu": 256}
_CHUNK_ELSEWHERE = 4096


class Codebook(NamedTuple):
    """The state of a codebook, with the names of the published class.

    embeddings: (codes, out). N: (codes,), moving average of each code's hits a step. z_avg: (codes, out), moving
    average of the sum of the vectors assigned to it; embeddings = z_avg / N.
    """

    embeddings: Tensor
    N: Tensor
    z_avg: Tensor


def nearest_code(z: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest code of each vector, computed in float32.

    z: (residues, out). embeddings: (codes, out). Returns codes (residues,) int64 and their Euclidean distances
    (residues,) float32. The distance of a vector that is not finite is not finite either.
    """
    z, embeddings = z.float(), embeddings.float()
    rows = _CHUNK.get(z.device.type, _CHUNK_ELSEWHERE)
    code = torch.empty(len(z), dtype=torch.int64, device=z.device)
    # One buffer for all chunks: freed between small allocations, large blocks are not used again by glibc's malloc.
    buffer = torch.empty(min(rows, len(z)), len(embeddings), dtype=torch.float32, device=z.device)
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        square = embeddings.square().sum(1)
        for start in range(0, len(z), rows):
            chunk = z[start : start + rows]
            # |z|² is the same for all codes of a residue, and left out.
            distances = torch.addmm(square, chunk, embeddings.t(), alpha=-2, out=buffer[: len(chunk)])
            code[start : start + len(chunk)] = _argmin(distances)
    # From the difference, not from |z|² - 2ze + |e|², which cancels.
    return code, (z - embeddings[code]).norm(dim=1)


def _argmin(distances: Tensor) -> Tensor:
    """Index (residues,) of the minimum of each row of (residues, codes); by NumPy on a CPU, where it is vectorized."""
    if distances.device.type == "cpu":
        return torch.from_numpy(distances.detach().numpy().argmin(1))
    return distances.argmin(1)
