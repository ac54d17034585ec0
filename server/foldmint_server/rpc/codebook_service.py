"""The servicer of `CodebookService`, for operators: calls the codebook manager, and maps errors to statuses."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_status import rpc_status

from foldmint.v1 import codebook_pb2 as pb
from foldmint.v1 import codebook_pb2_grpc as rpc
from foldmint_server.codebooks.manager import CodebookManager
from foldmint_server.codebooks.reservoir import Reservoir
from foldmint_server.codebooks.store_follower import StoreFollower
from foldmint_server.errors import CodebookRejected, ServerError, UnknownVersion, status_of
from foldmint_server.metrics.code_usage import CodeUsage
from foldmint_tokenizer import ModelError
from foldmint_tokenizer.store.model_store import Store

log = structlog.get_logger(__name__)
Request = TypeVar("Request")
Response = TypeVar("Response")
Method = Callable[["CodebookServicer", Request], Awaitable[Response]]
Servicing = Callable[["CodebookServicer", Request, "grpc.aio.ServicerContext[Request, Response]"], Awaitable[Response]]


def _with_statuses(method: "Method[Request, Response]") -> "Servicing[Request, Response]":
    """The method as gRPC calls it, with its errors as statuses."""

    @wraps(method)
    async def answered(
        servicer: "CodebookServicer", request: Request, context: "grpc.aio.ServicerContext[Request, Response]"
    ) -> Response:
        try:
            return await method(servicer, request)
        except Exception as error:
            if not isinstance(error, ServerError):
                log.exception("failed", method=method.__name__)
            await context.abort_with_status(rpc_status.to_status(status_of(error)))
            raise AssertionError("abort_with_status always raises") from error

    return answered


class CodebookServicer(rpc.CodebookServiceServicer):
    """Reports the codebooks of one server, and exchanges them through its store.

    reservoir: None if none is kept. poll_seconds: how often the follower reads the store; 0: at the start alone.
    """

    def __init__(
        self,
        codebooks: CodebookManager,
        follower: StoreFollower,
        usage: CodeUsage,
        reservoir: Reservoir | None,
        poll_seconds: float,
    ) -> None:
        self._codebooks, self._follower, self._usage, self._reservoir = codebooks, follower, usage, reservoir
        self._poll_seconds = poll_seconds

    @_with_statuses
    async def ListCodebooks(  # noqa: N802 (the contract's name)
        self,
        request: pb.ListCodebooksRequest,  # noqa: ARG002
    ) -> pb.ListCodebooksResponse:
        """All versions of store and server."""
        manifests = await asyncio.to_thread(_manifests, self._codebooks.store)
        manifests |= {version: serving.manifest for version, serving in self._codebooks.kept.items()}
        return pb.ListCodebooksResponse(
            codebooks=[self._info(version, manifest) for version, manifest in sorted(manifests.items())]
        )

    @_with_statuses
    async def GetCodebook(self, request: pb.GetCodebookRequest) -> pb.GetCodebookResponse:  # noqa: N802
        """One version, with its manifest."""
        version = request.version or self._codebooks.active.codebook_version
        kept = self._codebooks.kept.get(version)
        manifest = await asyncio.to_thread(_manifest, self._codebooks.store, version) if kept is None else kept.manifest
        return pb.GetCodebookResponse(
            codebook=self._info(version, manifest), manifest=json.dumps(dict(manifest), ensure_ascii=False)
        )

    @_with_statuses
    async def ActivateCodebook(self, request: pb.ActivateCodebookRequest) -> pb.ActivateCodebookResponse:  # noqa: N802
        """Exchange the codebook."""
        active, previous = await self._follower.activate(request.version)
        return pb.ActivateCodebookResponse(
            codebook=self._info(active.codebook_version, active.manifest), previous_version=previous
        )

    @_with_statuses
    async def RollbackCodebook(self, request: pb.RollbackCodebookRequest) -> pb.RollbackCodebookResponse:  # noqa: N802
        """Go back."""
        active, previous = await self._follower.roll_back(request.from_version)
        return pb.RollbackCodebookResponse(
            codebook=self._info(active.codebook_version, active.manifest), previous_version=previous
        )

    @_with_statuses
    async def GetUsage(self, request: pb.GetUsageRequest) -> pb.GetUsageResponse:  # noqa: N802
        """The hits of a version's codes, and whether the server follows its store."""
        version = request.version or self._codebooks.active.codebook_version
        usage = self._usage.of_version(version)
        if usage is None:
            await asyncio.to_thread(_manifest, self._codebooks.store, version)
            raise CodebookRejected(f"codebook {version} was never loaded by this server, or too long ago")
        return pb.GetUsageResponse(
            version=version, hits=usage.hits.tolist(), since=_timestamp(usage.since), store=self._store_state()
        )

    @_with_statuses
    async def SampleEmbeddings(self, request: pb.SampleEmbeddingsRequest) -> pb.SampleEmbeddingsResponse:  # noqa: N802
        """Vectors of residues, drawn at random."""
        if self._reservoir is None:
            raise CodebookRejected("the server samples no vectors; start it with --reservoir N")
        vectors, seen = await asyncio.to_thread(self._reservoir.sample, request.count)
        return pb.SampleEmbeddingsResponse(
            embeddings=vectors.astype("<f4").tobytes(),
            dimensions=vectors.shape[1],
            seen=seen,
            encoder_digest=self._codebooks.active.encoder_digest,
        )

    def _store_state(self) -> pb.StoreState:
        state = self._follower.state
        return pb.StoreState(
            active=state.active,
            canary="" if state.canary is None else state.canary.version,
            canary_share=0 if state.canary is None else state.canary.share,
            server_name=state.server,
            expected=state.expected,
            serving=self._follower.serving,
            follows=self._follower.follows,
            problem=state.problem,
            poll_seconds=self._poll_seconds,
        )

    def _info(self, version: str, manifest: Mapping[str, Any]) -> pb.CodebookInfo:
        kept, activated = self._codebooks.kept.get(version), self._codebooks.activated.get(version)
        return pb.CodebookInfo(
            version=version,
            digest="" if kept is None else kept.codebook_digest,
            active=version == self._codebooks.active.codebook_version,
            kept=kept is not None,
            activated=None if activated is None else _timestamp(activated),
            parent=str(manifest.get("parent") or ""),
        )


def _manifests(store: Store) -> dict[str, Mapping[str, Any]]:
    """The manifests of all complete versions of a store; empty where one is damaged.

    Raises CodebookRejected without a store.
    """
    manifests: dict[str, Mapping[str, Any]] = {}
    try:
        store.about()
        versions = store.versions()
    except ModelError as error:
        raise CodebookRejected(str(error)) from error
    for version in versions:
        try:
            manifests[version] = store.manifest(version)
        except ModelError as error:
            log.warning("a manifest cannot be read", version=version, reason=str(error))
            manifests[version] = {}
    return manifests


def _manifest(store: Store, version: str) -> Mapping[str, Any]:
    """The manifest of a version. Raises UnknownVersion if the store has none, CodebookRejected if it cannot be read."""
    try:
        store.about()
        if version not in store.versions():
            raise UnknownVersion(f"neither the server nor its store has a codebook {version[:100]!r}")
        return store.manifest(version)
    except ModelError as error:
        raise CodebookRejected(str(error)) from error


def _timestamp(seconds: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromNanoseconds(round(seconds * 1e9))
    return timestamp
