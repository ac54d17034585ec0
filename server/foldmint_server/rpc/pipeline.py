"""The path of a structure: parse in a thread, compute or decode on the device, answer; counted and timed on its way."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.codebooks.manager import CodebookManager, LoadedCodebook
from foldmint_server.codebooks.requested_versions import RequestedVersions
from foldmint_server.errors import VersionNotAvailable
from foldmint_server.inference.decode_worker import DecodeWorker, Wanted
from foldmint_server.inference.scheduler import Scheduler
from foldmint_server.metrics.code_usage import CodeUsage
from foldmint_server.metrics.registry import LEFT_OUT, Metrics
from foldmint_server.rpc.requests import ParsedTokens, parse_tokens, reading_of, tokenize_options
from foldmint_server.rpc.responses import chain_message, detokenize_response, left_out_message, reading_name
from foldmint_server.rpc.structure_parser import StructureParser, in_thread
from foldmint_server.security.authorization import CALLER
from foldmint_server.security.rate_limit import ResidueRateLimiter
from foldmint_server.tracing.spans import describe, stage_span, work_spans
from foldmint_tokenizer import Assignment, Limits
from foldmint_tokenizer.tokens import Coded, assembled, coded

P = ParamSpec("P")
R = TypeVar("R")


class Pipeline:
    """From a request to its response.

    decoding: None if the model has no decoder. pool: threads for what takes long. decode_limits: of a structure to
    decode. rates: of callers, by their tokens.
    """

    def __init__(
        self,
        codebooks: CodebookManager,
        versions: RequestedVersions,
        scheduler: Scheduler,
        decoding: DecodeWorker | None,
        parser: StructureParser,
        pool: ThreadPoolExecutor,
        decode_limits: Limits,
        usage: CodeUsage,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        rates: ResidueRateLimiter | None = None,
    ) -> None:
        self.codebooks = codebooks
        self._versions = versions
        self._rates = rates or ResidueRateLimiter()
        self._scheduler, self._decoding, self._parser, self._pool = scheduler, decoding, parser, pool
        self._decode_limits = decode_limits
        self._usage, self._metrics, self._clock = usage, metrics, clock

    async def tokenize(
        self,
        request: pb.TokenizeRequest,
        default: LoadedCodebook | None = None,
        *,
        caller: str = "",
        wait_for_room: bool = False,
        time_left: Callable[[], float | None] = lambda: None,
    ) -> pb.TokenizeResponse:
        """The tokens of a structure, under the version that it asks for; default: if it asks for none, else the active.

        caller: with whose requests it takes turns. time_left: seconds that it waits from now on; None: no limit.

        Raises InvalidStructure, RateLimited unless it waits for room, and what `RequestedVersions` and the scheduler
        raise.
        """
        options = tokenize_options(request)
        loaded = await self._versions.resolve(request.codebook_version, default)
        if loaded.coding is None and (lacking := options.needs_motions):
            raise VersionNotAvailable(
                f"the codes of the model {loaded.model} do not encode motions: it has no {lacking}"
            )
        describe(model=loaded.model, codebook_version=loaded.codebook_version)
        content, geometry = await self._parser.parse(request)
        describe(chains=len(content.chains), residues=len(geometry.residue_index))
        await self._rates.admit(len(geometry.residue_index), wait=wait_for_room)
        assigning = options.assignment is not Assignment.INDEPENDENT
        out = loaded.embeddings[0].shape[1]
        vectors = np.empty((len(geometry.queries), out), np.float32) if assigning else None
        with work_spans("compute", "foldmint.steps") as batch_times:
            quantized = await self._scheduler.compute(
                geometry,
                loaded.embeddings,
                caller=caller,
                wait_for_room=wait_for_room,
                seconds_left=time_left(),
                batch_times=batch_times,
                vectors=vectors,
            )
        codes, distances, motions = *quantized, None
        if loaded.coding is not None:
            code = partial(coded, content.chains, geometry, codes, distances, options, loaded.coding, vectors)
            # Along a chain, residue by residue: not in the event loop.
            codes, distances, motions = await in_thread(self._pool, self._assigned, code) if assigning else code()
        chains = assembled(content.chains, geometry, codes, distances, loaded.frameless, options, motions)
        self._usage.record(loaded.codebook_version, codes, distances)
        self._metrics.residues.labels("yes").inc(len(geometry.queries))
        self._metrics.residues.labels("no").inc(len(geometry.residue_index) - len(geometry.queries))
        self._metrics.callers.add_residues(CALLER.get().name, len(geometry.residue_index))
        for chain in content.chains:
            self._metrics.chain_residues.observe(len(chain.residue_index))
        for left_out in content.left_out:
            if left_out.kind in LEFT_OUT:
                self._metrics.left_out_residues.labels(left_out.kind).inc(left_out.residues)
        return pb.TokenizeResponse(
            model=loaded.model,
            codebook_version=loaded.codebook_version,
            chains=[chain_message(chain) for chain in chains],
            left_out=[left_out_message(left_out) for left_out in content.left_out],
            warnings=content.warnings,
            reading=reading_name(reading_of(request, self._parser.reading)),
            codebook_digest=loaded.codebook_digest,
            encoder_digest=loaded.encoder_digest,
        )

    async def detokenize(self, request: pb.DetokenizeRequest) -> pb.DetokenizeResponse:
        """What tokens stand for.

        Raises InvalidTokens, InvalidStructure, VersionNotAvailable, RateLimited, and what `RequestedVersions` and the
        decoding raise.
        """
        model, decoding = self.codebooks.active.model, self._decoding
        if decoding is None:
            raise VersionNotAvailable(f"the model {model} has no decoder")
        if request.model not in ("", model):
            # Shortened: the caller chose it, and it is part of messages and logs.
            raise VersionNotAvailable(f"the tokens are of model {request.model[:100]!r}, and {model!r} is served")
        loaded = await self._versions.resolve(request.codebook_version)
        describe(model=model, codebook_version=loaded.codebook_version)
        wanted = await in_thread(self._pool, self._parsed_tokens, request, loaded.codes)
        if loaded.coding is None and (lacking := wanted.needs_motions):
            raise VersionNotAvailable(f"the codes of the model {model} do not encode motions: it has no {lacking}")
        describe(residues=wanted.residues)
        await self._rates.admit(wanted.residues, wait=False)
        with work_spans("decode") as batch_times:
            structure = await decoding.decode(
                wanted.tokens,
                wanted.residues,
                Wanted(
                    wanted.has_frame,
                    request.options.pae,
                    loaded.decoder_inputs,
                    wanted.assignment,
                    wanted.segments,
                ),
                batch_times,
            )
        self._metrics.callers.add_residues(CALLER.get().name, wanted.residues)
        # In a thread, for it may write a file.
        return await in_thread(
            self._pool, detokenize_response, structure, wanted, request, model, loaded.codebook_version
        )

    def _parsed_tokens(self, request: pb.DetokenizeRequest, codes: int) -> ParsedTokens:
        began = self._clock()
        with stage_span("parse"):
            wanted = parse_tokens(request, codes, self._decode_limits)
        self._metrics.stage_seconds.labels("parse").observe(self._clock() - began)
        return wanted

    def _assigned(self, code: Callable[[], Coded]) -> Coded:
        began = self._clock()
        with stage_span("assign"):
            found = code()
        self._metrics.stage_seconds.labels("assign").observe(self._clock() - began)
        return found
