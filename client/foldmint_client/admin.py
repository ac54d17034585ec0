"""The client for operators: the codebook that a server serves, usage of its codes, activation and rollback.

from foldmint_client import CodebookAdmin
with CodebookAdmin("localhost:50052") as admin:
    print(admin.codebook().version, admin.usage().hits)
    admin.activate("000002")
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from foldmint.v1 import codebook_pb2, codebook_pb2_grpc
from foldmint_client.connection import Connection, ConnectionOptions
from foldmint_client.errors import InvalidOptions, ServerError
from foldmint_client.transport.channels import open_channel
from foldmint_client.transport.common import Sleep
from foldmint_client.transport.retry import call_with_retries, server_paced
from foldmint_client.transport.status import translated

T = TypeVar("T")


@dataclass(frozen=True)
class CodebookInfo:
    """A version of the codebook, as a server knows it.

    digest: SHA-256 of its tensors, in hexadecimal; empty if the server has not loaded it. active: the version of
    requests that name none. kept: whether requests may name it. activated: when this server activated it last, UTC;
    None if it never did. parent: the version that it was made from; empty if none. manifest: what was written of it;
    None where it was not requested.
    """

    version: str
    digest: str
    active: bool
    kept: bool
    activated: datetime | None
    parent: str
    manifest: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Activation:
    """What is served now, and the version that was active before."""

    codebook: CodebookInfo
    previous_version: str


@dataclass(frozen=True)
class StoreState:
    """What a server's store said when the server read it last, and what the server serves by default.

    active: the version that ACTIVE names. canary, canary_share: the version that CANARY names, and the share of the
    servers that serve it; None if there is none. server_name: decides whether the server belongs to that share.
    expected: the version that follows from both; serving: the version that is served. follows: whether it is, and both
    files can be used; problem: why not, empty if it is. poll_seconds: how often the server reads its store; 0: at its
    start alone.
    """

    active: str
    canary: str | None
    canary_share: float | None
    server_name: str
    expected: str
    serving: str
    follows: bool
    problem: str
    poll_seconds: float


@dataclass(frozen=True, eq=False)
class CodebookUsage:
    """The usage of a version on one server.

    hits: (codes,), uint64, residues with a frame that got each code while the server had the version. since: when the
    server first activated it, UTC; None if unknown. store: what its store says; None of older servers.
    """

    version: str
    hits: npt.NDArray[np.uint64]
    since: datetime | None
    store: StoreState | None = None


@dataclass(frozen=True, eq=False)
class EmbeddingSample:
    """A uniform sample of the vectors of recent residues, before quantization.

    embeddings: (count, dimensions), float32. seen: residues with a frame that it was drawn from. encoder_digest:
    SHA-256 of the encoder's weights that computed them, in hexadecimal.
    """

    embeddings: npt.NDArray[np.float32]
    seen: int
    encoder_digest: str


class CodebookAdmin:
    """A connection to the admin listener of a Foldmint server; threads may share it.

    address: HOST:PORT. Keywords are those of `foldmint_client.Client`. Nothing is sent before the first call. Every
    method raises FoldmintError, and no error of gRPC's: NotFound for a version that neither server nor store has,
    FailedPrecondition with the server's reason where it declines. timeout: seconds, retries included. While the server
    is UNAVAILABLE, queries are retried; `activate` and `rollback` are not, since a second answer would not show what
    the first call did. Every method is retried when the server rejects it and says when to retry.
    """

    def __init__(self, address: str, *, sleep: Sleep = time.sleep, **options: Unpack[ConnectionOptions]) -> None:
        self._connection = Connection(address, **options)
        if len(self._connection.addresses) > 1:
            raise InvalidOptions(f"the address is that of one server, not a list: {address}", "target")
        self._sleep = sleep
        self._metadata = self._connection.metadata()
        self._channel = open_channel(self._connection)
        self._stub = codebook_pb2_grpc.CodebookServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that are under way are cancelled."""
        self._channel.close()

    def codebooks(self, *, timeout: float | None = None) -> tuple[CodebookInfo, ...]:
        """All complete versions of the server's store, and what else it keeps, in order; without manifests."""
        response = self._call(self._stub.ListCodebooks, codebook_pb2.ListCodebooksRequest(), timeout)
        return tuple(_to_info(info) for info in response.codebooks)

    def codebook(self, version: str | None = None, *, timeout: float | None = None) -> CodebookInfo:
        """One version with its manifest; the active one by default."""
        request = codebook_pb2.GetCodebookRequest(version=_version(version))
        response = self._call(self._stub.GetCodebook, request, timeout)
        return _to_info(response.codebook, response.manifest)

    def activate(self, version: str, *, timeout: float | None = None) -> Activation:
        """Make a version the active one of the server's store, and serve it; the store's other servers follow.

        FailedPrecondition if the server cannot write to the store, unless the version is active there already.
        """
        if not version:
            raise InvalidOptions("the version to be activated is empty", "version")
        request = codebook_pb2.ActivateCodebookRequest(version=version)
        response = self._call(self._stub.ActivateCodebook, request, timeout)
        return Activation(_to_info(response.codebook), response.previous_version)

    def rollback(self, from_version: str | None = None, *, timeout: float | None = None) -> Activation:
        """Make the version active again, in the server's store, that was active before the present one, and serve it.

        from_version: the one that must be active for this to be done, so that two who roll back go back once; any
        by default. FailedPrecondition if another is active, or there was none before.
        """
        request = codebook_pb2.RollbackCodebookRequest(from_version=_version(from_version))
        response = self._call(self._stub.RollbackCodebook, request, timeout)
        return Activation(_to_info(response.codebook), response.previous_version)

    def usage(self, version: str | None = None, *, timeout: float | None = None) -> CodebookUsage:
        """How often each code of a version was hit on this server, of the active one by default; and its store."""
        request = codebook_pb2.GetUsageRequest(version=_version(version))
        response = self._call(self._stub.GetUsage, request, timeout)
        if not response.hits:
            raise ServerError("the answer holds no hits of codes")
        since = _to_datetime(response.since) if response.HasField("since") else None
        store = _to_store_state(response.store) if response.HasField("store") else None
        return CodebookUsage(response.version, np.fromiter(response.hits, np.uint64, len(response.hits)), since, store)

    def sample(self, count: int = 0, *, timeout: float | None = None) -> EmbeddingSample:
        """Vectors of recent residues, at most so many; all that the server's reservoir holds for 0.

        FailedPrecondition unless the server keeps a reservoir.
        """
        if not 0 <= count < 2**64:
            raise InvalidOptions(f"count is 0 or more, in 64 bits, not {count}", "count")
        request = codebook_pb2.SampleEmbeddingsRequest(count=count)
        response = self._call(self._stub.SampleEmbeddings, request, timeout)
        return _to_sample(response)

    def _call(self, method: Callable[..., T], request: Message, timeout: float | None) -> T:
        """The answer of a method, which is called again when the server asks for that."""

        def call(left: float) -> T:
            with translated():
                return method(request, timeout=left, metadata=self._metadata)

        seconds = self._connection.deadline(timeout)
        return call_with_retries(call, server_paced(self._connection.retry, seconds), self._sleep)


def _version(version: str | None) -> str:
    if version == "":
        raise InvalidOptions("the version is empty; leave it out for any, or the active one", "version")
    return version or ""


def _to_info(info: codebook_pb2.CodebookInfo, manifest: str | None = None) -> CodebookInfo:
    return CodebookInfo(
        version=info.version,
        digest=info.digest,
        active=info.active,
        kept=info.kept,
        activated=_to_datetime(info.activated) if info.HasField("activated") else None,
        parent=info.parent,
        manifest=None if manifest is None else _to_manifest(manifest),
    )


def _to_store_state(state: codebook_pb2.StoreState) -> StoreState:
    return StoreState(
        active=state.active,
        canary=state.canary or None,
        canary_share=state.canary_share if state.canary else None,
        server_name=state.server_name,
        expected=state.expected,
        serving=state.serving,
        follows=state.follows,
        problem=state.problem,
        poll_seconds=state.poll_seconds,
    )


def _to_manifest(text: str) -> Mapping[str, Any]:
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise ServerError(f"the answer's manifest is not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise ServerError("the answer's manifest is not a JSON object")
    return manifest


def _to_datetime(stamp: Timestamp) -> datetime:
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise ServerError(f"the answer holds an invalid time: {error}") from error


def _to_sample(response: codebook_pb2.SampleEmbeddingsResponse) -> EmbeddingSample:
    size, row = len(response.embeddings), 4 * response.dimensions
    if size % row if row else size:
        raise ServerError(f"the answer's {size} bytes are not vectors of {response.dimensions} dimensions")
    vectors = np.frombuffer(response.embeddings, "<f4").astype(np.float32)  # writable, and of this machine's order
    return EmbeddingSample(
        vectors.reshape(size // row if row else 0, response.dimensions), response.seen, response.encoder_digest
    )
