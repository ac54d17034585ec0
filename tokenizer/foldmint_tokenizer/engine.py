"""The computation: rows in, codes and distances out, on one device."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.neighborhoods import NEIGHBORS, OFFSET_LIMIT, Neighborhoods

# Elements of the largest intermediate of a step, (rows, 16, 16, heads) or (rows, 16, 2 * hidden): enough to keep a
# device busy, little enough that a step is short and its memory small. 64 MiB of float32 on a CPU, 1 GiB elsewhere.
_STEP_ELEMENTS = {"cpu": 2**24}
_STEP_ELEMENTS_ELSEWHERE = 2**28


class Quantized(NamedTuple):
    """codes: (rows,) int64. distances: (rows,) float32, from each vector to its code."""

    codes: NDArray[np.int64]
    distances: NDArray[np.float32]


class Engine:
    """An encoder on a device. Not safe for use by several threads at a time.

    step_rows: how many rows are computed at once.
    """

    def __init__(self, encoder: Encoder, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.encoder = encoder.to(self.device).eval()
        config = encoder.config
        widest = NEIGHBORS * max(NEIGHBORS * config.heads, 2 * config.hidden, 15 * config.heads)
        elements = _STEP_ELEMENTS.get(self.device.type, _STEP_ELEMENTS_ELSEWHERE)
        self.step_rows = max(16, elements // widest)

    def vectors(self, rows: Neighborhoods) -> Tensor:
        """z (rows, out), float32, on the device; in steps of `step_rows`, which bound the memory."""
        with torch.inference_mode():
            parts = [
                self.encoder(*(self._tensor(column[start : start + self.step_rows]) for column in rows)).float()
                for start in range(0, len(rows.offset), self.step_rows)
            ]
            if not parts:
                return torch.empty(0, self.encoder.config.out, device=self.device)
            return torch.cat(parts)

    def quantize(self, z: Tensor, embeddings: Tensor) -> Quantized:
        """Nearest codes of z (rows, out) among embeddings (codes, out), both on the device.

        Raises ModelError if a vector is not finite: it has no nearest code.
        """
        with torch.inference_mode():
            codes, distances = nearest_code(z, embeddings)
        apart = distances.cpu().numpy()
        if not np.isfinite(apart).all():
            raise ModelError("the encoder computed a vector that is not finite")
        return Quantized(codes.cpu().numpy(), apart)

    def frameless_code(self, embeddings: Tensor) -> int:
        """The code (of ESM3: 955) of every residue that has no frame."""
        with torch.inference_mode():
            z = self.encoder.without_frame()[None].float()
        return int(self.quantize(z, embeddings).codes[0])

    def warm_up(self, embeddings: Tensor) -> None:
        """Compute a full step of rows that tell nothing, so that the first request does not wait for libraries."""
        shape = (self.step_rows, NEIGHBORS)
        rows = Neighborhoods(
            np.broadcast_to(np.eye(3, dtype=np.float32), (*shape, 3, 3)).copy(),
            np.zeros((*shape, 3), np.float32),
            np.full(shape, OFFSET_LIMIT + 1, np.int64),
            np.ones(shape, np.bool_),
        )
        self.quantize(self.vectors(rows), embeddings)

    def _tensor(self, column: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(column).to(self.device, non_blocking=True)
