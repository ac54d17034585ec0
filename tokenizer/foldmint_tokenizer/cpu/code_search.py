"""Nearest-code search on a CPU: by tiles, or by the product that ESM's encoder uses."""

import threading
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.kernels.quantization import nearest_codes, packed_codes


class _Packed(NamedTuple):
    """Codes (codes, out), as they were at this version of their tensor, and packed."""

    version: int
    embeddings: NDArray[np.float32]
    packed: NDArray[np.float32]


class CodeSearch:
    """Finds the nearest codes of vectors, as `nearest_code` does. Thread-safe.

    by_tiles: faster where such products are, and of codes that float32 cannot tell apart the nearer one, not the one
    that ESM's product prefers. Codes are packed when they are first used, and again after torch has changed their
    tensor.
    """

    def __init__(self, *, by_tiles: bool) -> None:
        self._by_tiles = by_tiles
        self._known = WeakTensorKeyDictionary()
        self._lock = threading.Lock()

    def __call__(self, z: Tensor, embeddings: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Codes and distances (rows,) of z (rows, out) among embeddings (codes, out)."""
        with torch.inference_mode():
            if not self._by_tiles:
                found, apart = nearest_code(z, embeddings)
                return found.numpy(), apart.detach().numpy()
            given = z.detach().float().contiguous().numpy()
        own = self._packed(embeddings)
        codes, distances = np.empty(len(given), np.int64), np.empty(len(given), np.float32)
        nearest_codes(given, own.embeddings, own.packed, codes, distances)
        return codes, distances

    def _packed(self, embeddings: Tensor) -> _Packed:
        if embeddings.is_inference():  # changes are not counted
            return _pack(embeddings, 0)
        with self._lock:
            known: _Packed | None = self._known.get(embeddings)  # type: ignore[no-untyped-call]
            version = embeddings._version  # noqa: SLF001 (PyTorch has no other name for it)
            if known is None or known.version != version:
                known = self._known[embeddings] = _pack(embeddings, version)
        return known


def _pack(embeddings: Tensor, version: int) -> _Packed:
    own = embeddings.detach().float().contiguous().numpy()
    return _Packed(version, own, packed_codes(own))
