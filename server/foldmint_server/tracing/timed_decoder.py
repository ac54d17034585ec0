"""When the decode thread worked on whose tokens."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from foldmint_server.inference.decode_worker import Decoder
from foldmint_tokenizer import Assignment, DecodedStructure
from foldmint_tokenizer.detokenizer import DecoderInputs
from foldmint_tokenizer.motion.motions import Segments


class TimedDecoder:
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
        self,
        tokens: NDArray[np.int64],
        *,
        has_frame: NDArray[np.bool_] | None = None,
        pae: bool = False,
        inputs: DecoderInputs | None = None,
        assignment: Assignment = Assignment.INDEPENDENT,
        segments: Sequence[Segments] | None = None,
    ) -> DecodedStructure:
        """As the decoder's."""
        times = self._times.get(id(tokens), [])
        times.append(self._clock())
        try:
            return self._decoder.detokenize(
                tokens, has_frame=has_frame, pae=pae, inputs=inputs, assignment=assignment, segments=segments
            )
        finally:
            times.append(self._clock())
