"""When the device and the decode thread worked on what: steps of one request, timed from outside of the scheduler."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, cuda

from foldmint_server.decoding import Decoder
from foldmint_server.scheduler import Device
from foldmint_tokenizer import DecodedStructure
from foldmint_tokenizer.engine import Quantized
from foldmint_tokenizer.neighborhoods import Geometry, Neighborhoods


@dataclass
class Step:
    """A step of the device, times in ns since 1970: begun, all vectors computed, all rows quantized; 0: not yet."""

    began: int
    computed: int = 0
    ended: int = 0


class WatchedDevice:
    """A device that notes when its steps were, for the requests that had a part in them. One thread computes.

    A step begins when the first request is asked for its rows: `watch` gives a request a shape that tells of it.
    """

    def __init__(self, device: Device, clock: Callable[[], int] = time.time_ns) -> None:
        self._device, self._clock = device, clock
        self._step = Step(0, 0, 0)
        self._open = False

    def watch(self, shape: Geometry) -> "WatchedGeometry":
        """The shape, with the steps that its rows have a part in, which become more as it is computed."""
        watched = WatchedGeometry(*shape)
        watched.steps, watched.present = [], self._present
        return watched

    def _present(self) -> Step:
        """The step whose rows are being put together."""
        if not self._open:
            self._step, self._open = Step(self._clock()), True
        return self._step

    def vectors(self, rows: Neighborhoods) -> Tensor:
        """As the device's."""
        step = self._present()
        try:
            z = self._device.vectors(rows)
            if z.is_cuda:  # which else would end at the first quantization, and count as that
                cuda.current_stream(z.device).synchronize()
            return z
        finally:
            step.computed, self._open = self._clock(), False

    def quantize(self, z: Tensor, embeddings: Tensor) -> Quantized:
        """As the device's."""
        try:
            return self._device.quantize(z, embeddings)
        finally:
            self._step.ended = self._clock()


class WatchedGeometry(Geometry):
    """A shape that knows the steps that its rows had a part in."""

    steps: list[Step]
    present: Callable[[], Step]

    def rows(self, select: slice | NDArray[np.integer]) -> Neighborhoods:
        """As a shape's."""
        self.steps.append(self.present())
        return super().rows(select)


class WatchedDecoder:
    """A decoder that notes when it worked on whose tokens, which are known by their array."""

    def __init__(self, decoder: Decoder, clock: Callable[[], int] = time.time_ns) -> None:
        self._decoder, self._clock = decoder, clock
        self._times: dict[int, list[int]] = {}

    @contextmanager
    def watch(self, tokens: NDArray[np.int64]) -> Iterator[list[int]]:
        """Yields what becomes the times of begin and end, ns since 1970, of the decoding of tokens (length,)."""
        times: list[int] = []
        self._times[id(tokens)] = times
        try:
            yield times
        finally:
            del self._times[id(tokens)]

    def detokenize(
        self, tokens: NDArray[np.int64], *, pae: bool = False, embedding: Tensor | None = None
    ) -> DecodedStructure:
        """As the decoder's."""
        times = self._times.get(id(tokens), [])
        times.append(self._clock())
        try:
            return self._decoder.detokenize(tokens, pae=pae, embedding=embedding)
        finally:
            times.append(self._clock())
