"""The path of a structure: parse in a thread, compute or decode on the device, answer; counted and timed on its way."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from torch import Tensor

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.decoding import Decoding
from foldmint_server.errors import NotServed
from foldmint_server.messages import Decodable, decodable, decoded, decoded_response, encoded, options_of
from foldmint_server.metrics import Metrics
from foldmint_server.scheduler import Scheduler
from foldmint_tokenizer import Backbone, Limits
from foldmint_tokenizer.neighborhoods import Geometry
from foldmint_tokenizer.tokens import assembled, structure_geometry


class Serving(NamedTuple):
    """One version of model and codebook; a structure keeps the one that it was admitted under.

    embeddings: (codes, out), on the device. frameless: the code of residues without a frame. codes: how many.
    """

    model: str
    encoder_digest: str
    codebook_version: str
    codebook_digest: str
    embeddings: Tensor
    frameless: int
    codes: int


class Pipeline:
    """From a request to its response.

    decoding: None if the model has no decoder. limits, decode_limits: of a structure, and of one to decode.
    """

    def __init__(
        self,
        serving: Serving,
        scheduler: Scheduler,
        decoding: Decoding | None,
        pool: ThreadPoolExecutor,
        limits: Limits,
        decode_limits: Limits,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.serving = serving
        self._scheduler, self._decoding, self._pool = scheduler, decoding, pool
        self._limits, self._decode_limits = limits, decode_limits
        self._metrics, self._clock = metrics, clock

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

    async def detokenize(self, request: pb.DetokenizeRequest) -> pb.DetokenizeResponse:
        """What tokens stand for. Raises InvalidTokens, InvalidStructure, NotServed, and what the decoding raises."""
        serving, decoding = self.serving, self._decoding
        if decoding is None:
            raise NotServed(f"the model {serving.model} has no decoder")
        _check_served(request, serving)
        loop = asyncio.get_running_loop()
        wanted = await loop.run_in_executor(self._pool, self._parsed_tokens, request, serving.codes)
        structure = await decoding.decode(wanted.tokens, wanted.residues, pae=request.options.pae)
        # In a thread, for it may write a file.
        return await loop.run_in_executor(
            self._pool, decoded_response, structure, wanted, request, serving.model, serving.codebook_version
        )

    def _parsed_tokens(self, request: pb.DetokenizeRequest, codes: int) -> Decodable:
        began = self._clock()
        wanted = decodable(request, codes, self._decode_limits)
        self._metrics.stage_seconds.labels("parse").observe(self._clock() - began)
        return wanted

    def _parsed(self, request: pb.TokenizeRequest) -> tuple[list[Backbone], Geometry]:
        began = self._clock()
        backbones = decoded(request, self._limits)
        shape = structure_geometry(backbones, request.options.complex)
        self._metrics.stage_seconds.labels("parse").observe(self._clock() - began)
        return backbones, shape


def _check_served(request: pb.DetokenizeRequest, serving: Serving) -> None:
    """Raise NotServed if the tokens are said to be of something else than what is served."""
    for what, wanted, served in (
        ("model", request.model, serving.model),
        ("codebook version", request.codebook_version, serving.codebook_version),
    ):
        if wanted not in ("", served):
            # Named by a stranger, and part of messages and logs.
            raise NotServed(f"the tokens are of {what} {wanted[:100]!r}, and {served!r} is served")
