"""A uniform sample of the vectors that were computed, of a bounded size."""

import threading
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Vectors copied under one lock: 2 MiB at 128 dimensions, so that the device thread does not wait.
_COPIED = 4096


class Sample(NamedTuple):
    """vectors: (count, dimensions) float32, in random order. seen: how many vectors they were drawn from."""

    vectors: NDArray[np.float32]
    seen: int


class Reservoir:
    """Of all vectors that were recorded, each is in it with the same chance. No coordinates, and no order.

    Algorithm R (Vitter, Random sampling with a reservoir, ACM TOMS 11, 1985, pp. 37-57): of the t-th vector, a place is
    drawn among t; it is put there if there is such a place in the reservoir, and dropped otherwise. Here for a batch at
    once: of several that drew one place the last stays, as if they had come one by one.
    """

    def __init__(self, size: int, dimensions: int, generator: np.random.Generator) -> None:
        """size: vectors kept at most, 4 bytes a dimension each, on the CPU."""
        self._kept = np.zeros((size, dimensions), np.float32)
        self._seen = 0
        self._lock = threading.Lock()
        self._drawing, self._choosing = generator.spawn(2)
        self._choice = threading.Lock()

    def record(self, z: Tensor) -> None:
        """Take vectors (rows, dimensions) of any device; what is not kept is not copied from there. By one thread."""
        numbers = np.arange(self._seen, self._seen + len(z))
        # The first fill it, in order.
        places = np.where(numbers < len(self._kept), numbers, self._drawing.integers(0, numbers + 1))
        taken = np.flatnonzero(places < len(self._kept))
        vectors = z[torch.from_numpy(taken).to(z.device)].float().cpu().numpy()
        with self._lock:
            self._kept[places[taken]] = vectors
            self._seen += len(z)

    def sample(self, count: int = 0) -> Sample:
        """At most so many of the vectors that are kept, all for 0, chosen and ordered at random."""
        with self._lock:
            seen = self._seen
        filled = min(seen, len(self._kept))
        with self._choice:
            chosen = self._choosing.permutation(filled)[: count or filled]
        vectors = np.empty((len(chosen), self._kept.shape[1]), np.float32)
        for start in range(0, len(chosen), _COPIED):
            part = slice(start, start + _COPIED)
            with self._lock:
                vectors[part] = self._kept[chosen[part]]
        return Sample(vectors, seen)
