"""The path of a structure: parse in a thread, compute on the device, answer; counted and timed on its way."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from torch import Tensor

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.messages import decoded, encoded, options_of
from foldmint_server.metrics import Metrics
from foldmint_server.scheduler import Scheduler
from foldmint_tokenizer import Backbone, Limits
from foldmint_tokenizer.neighborhoods import Geometry
from foldmint_tokenizer.tokens import assembled, structure_geometry


class Serving(NamedTuple):
    """One version of model and codebook; a structure keeps the one that it was admitted under.

    embeddings: (codes, out), on the device. frameless: the code of residues without a frame.
    """

    model: str
    encoder_digest: str
    codebook_version: str
    codebook_digest: str
    embeddings: Tensor
    frameless: int


class Pipeline:
    """From a request to its response."""

    def __init__(
        self,
        serving: Serving,
        scheduler: Scheduler,
        pool: ThreadPoolExecutor,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.serving = serving
        self._scheduler, self._pool, self._limits, self._metrics, self._clock = (
            scheduler,
            pool,
            limits,
            metrics,
            clock,
        )

    async def tokenize(self, request: pb.TokenizeRequest, *, wait_for_room: bool = False) -> pb.TokenizeResponse:
        """The tokens of a structure. Raises InvalidStructure, and what the scheduler raises."""
        serving = self.serving
        loop = asyncio.get_running_loop()
        backbones, shape = await loop.run_in_executor(self._pool, self._parsed, request)
        quantized = await self._scheduler.compute(shape, serving.embeddings, wait_for_room=wait_for_room)
        chains = assembled(backbones, shape, *quantized, serving.frameless, options_of(request))
        self._metrics.usage.record(*quantized)
        self._metrics.residues.labels("yes").inc(len(shape.queries))
        self._metrics.residues.labels("no").inc(len(shape.residue_index) - len(shape.queries))
        return pb.TokenizeResponse(
            model=serving.model,
            codebook_version=serving.codebook_version,
            chains=[encoded(chain) for chain in chains],
        )

    def _parsed(self, request: pb.TokenizeRequest) -> tuple[list[Backbone], Geometry]:
        began = self._clock()
        backbones = decoded(request, self._limits)
        shape = structure_geometry(backbones, request.options.complex)
        self._metrics.stage_seconds.labels("parse").observe(self._clock() - began)
        return backbones, shape
