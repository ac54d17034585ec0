"""The blocking client."""

import time
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foldmint.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_client.addresses import Address
from foldmint_client.connection import Connection, ConnectionOptions
from foldmint_client.errors import NotFound
from foldmint_client.models.decoded import Decoded, to_decoded
from foldmint_client.models.detokenize_request import (
    DetokenizeKeywords,
    DetokenizeOptions,
    TokenInput,
    needs_chainbreak,
    to_detokenize_request,
)
from foldmint_client.models.responses import Health, ModelInfo, Tokens, to_model, to_tokens
from foldmint_client.models.tokenize_request import (
    Request,
    Structure,
    TokenizeKeywords,
    TokenizeOptions,
    check_size,
    to_request,
)
from foldmint_client.transport.channels import Channels, open_channel, resolve
from foldmint_client.transport.common import (
    ASK_LIMIT_ABOVE,
    Sleep,
    message_limit,
    to_health,
)
from foldmint_client.transport.failover import Failover, Rotation
from foldmint_client.transport.retry import call_with_retries
from foldmint_client.transport.status import translated
from foldmint_client.transport.stream_state import InFlightTracker, Result
from foldmint_client.transport.sync_stream import StreamJob
from foldmint_client.transport.trace_context import Metadata, with_context

K = TypeVar("K")
T = TypeVar("T")


class Client:
    """A connection to a Foldmint server, or to several; threads may share it.

    target: HOST:PORT, or a list, HOST:PORT,HOST:PORT. Keywords: timeout=60.0, tls=None, token=None, retry=Retry(),
    max_message_bytes=256 MiB, keepalive=300.0, balance="round_robin", channel_options=(); see
    `foldmint_client.connection.Connection`. sleep: how to wait before a retry.
    Nothing is sent before the first call. Every method raises FoldmintError, and no error of gRPC's.
    """

    def __init__(self, target: str, *, sleep: Sleep = time.sleep, **options: Unpack[ConnectionOptions]) -> None:
        self._connection = Connection(target, **options)
        self._sleep = sleep
        self._channels = Channels(self._connection, open_channel)
        self._channels.get(self._connection.addresses[0])  # files of certificates are read at once
        self._rotation = Rotation(self._connection)
        self._served: ModelInfo | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that are under way are cancelled."""
        for channel in self._channels.opened:
            channel.close()

    def tokenize(
        self, structure: Structure, *, timeout: float | None = None, **options: Unpack[TokenizeKeywords]
    ) -> Tokens:
        """The tokens of one structure.

        structure: a path, a file's bytes, a Selection (chains of a file), a Backbone, or a sequence of those; files are
        PDB, mmCIF or BinaryCIF, plain or compressed by gzip, zstd, xz or bzip2.
        timeout: seconds, retries included, and pauses that the server asks for. Keywords: format=None, model_number=0,
        chains=(), reading=None, min_plddt=None, assembly="", renumber=False, complex=False, special_tokens=False,
        distances=False, assignment="independent", first_frames=False, codebook_version=None; see
        `foldmint_client.models.tokenize_request.TokenizeOptions`.
        """
        deadline = self._connection.deadline(timeout)
        request_options = TokenizeOptions(**options)
        request = self._request(structure, request_options)
        version = request_options.version
        return self._call("Tokenize", request, deadline, lambda response: to_tokens(response, request, version))

    @overload
    def tokenize_many(  # type: ignore[overload-overlap]  # a pair means a key and a structure
        self,
        structures: Iterable[tuple[K, Structure]],
        *,
        in_flight: int = ...,
        ordered: bool = ...,
        timeout: float | None = ...,
        **options: Unpack[TokenizeKeywords],
    ) -> Generator[tuple[K, Result]]: ...
    @overload
    def tokenize_many(
        self,
        structures: Iterable[Structure],
        *,
        in_flight: int = ...,
        ordered: bool = ...,
        timeout: float | None = ...,
        **options: Unpack[TokenizeKeywords],
    ) -> Generator[tuple[int, Result]]: ...
    def tokenize_many(
        self,
        structures: Iterable[Any],
        *,
        in_flight: int = 64,
        ordered: bool = True,
        timeout: float | None = None,
        **options: Unpack[TokenizeKeywords],
    ) -> Generator[tuple[Any, Result]]:
        """The tokens of many structures, each with its key, or with the error that it failed with.

        structures: structures as `tokenize` takes them, or pairs (key, structure); without keys, positions from 0 are
        the keys. They are pulled in the caller's thread, as capacity permits: at most `in_flight` are pulled and not
        yet returned. ordered: results come in the input's order, otherwise as they are ready. timeout: the longest wait
        for any answer; what is unanswered then fails with DeadlineExceeded. Keywords as of `tokenize`.

        All results are of one version: the first one's, unless `codebook_version` names another, or ACTIVE.

        There is one stream to each server, and a structure goes to the one that is expected to answer it first. What a
        server has not answered when it fails is sent to another; when it is back, it gets work again. A structure that
        a server rejects for now is sent again after a pause, `Retry.refused_attempts` times in all; one that needs a
        version that a server lacks goes to another, and fails with FailedPrecondition if there is none.

        A server's stream that breaks with UNAVAILABLE or RESOURCE_EXHAUSTED is opened again, no sooner than the server
        asks. The server is given up after `Retry.attempts` streams in a row that broke without an answer, if one breaks
        for any other reason, or if the server asks for a pause longer than `timeout`. Raises FoldmintError only if all
        servers are given up, or after more timeouts in a row than there are servers.
        """
        wait, request_options = self._connection.deadline(timeout), TokenizeOptions(**options)
        job = StreamJob(
            structures,
            InFlightTracker(
                in_flight,
                ordered,
                self._connection.retry,
                wait,
                request_options.version,
                self._connection.addresses,
                self._connection.balance,
            ),
            lambda structure: self._request(structure, request_options),
            lambda: resolve(self._connection),
            self._stub,
            lambda: self._metadata,
            self._sleep,
            wait,
        )
        return job.results()

    def detokenize(
        self, tokens: TokenInput, *, timeout: float | None = None, **options: Unpack[DetokenizeKeywords]
    ) -> Decoded:
        """The structure that tokens encode, with confidences.

        tokens: as `tokenize` returned them, with special tokens or without; those of one chain, or of some; or token
        ids (length,) with CHAINBREAK between chains. Several chains are decoded as one structure, which makes sense for
        the tokens of a complex; others are better decoded one by one. timeout: seconds, retries included. Keywords:
        format=None, pae=False, labels=None, fill=False, model=None, codebook_version=None; see
        `foldmint_client.models.detokenize_request.DetokenizeOptions`. Residues without a frame are gaps in the answer,
        unless `fill` decodes their tokens all the same.
        """
        deadline = self._connection.deadline(timeout)
        chainbreak = self._known().vocabulary.chainbreak if needs_chainbreak(tokens) else 0
        most = self._connection.max_message_bytes
        request = to_detokenize_request(tokens, DetokenizeOptions(**options), chainbreak, most)
        self._check_size(request, "tokens")
        return self._call("Detokenize", request, deadline, lambda response: to_decoded(response, request))

    def model(self, *, timeout: float | None = None) -> ModelInfo:
        """The server's model, codebook, vocabulary and limits."""
        deadline = self._connection.deadline(timeout)
        return self._call("GetModel", tokenizer_pb2.GetModelRequest(), deadline, to_model)

    def health(self, service: str = "", *, timeout: float | None = None) -> Health:
        """The server's health; of several servers, that of the first that is not SERVING, if there is one.

        service: `foldmint.v1.TokenizerService`, or empty for the server.
        """
        status, deadline = Health.SERVING, self._connection.deadline(timeout)
        request = health_pb2.HealthCheckRequest(service=service)
        for address in self._rotation.addresses:
            stub = health_pb2_grpc.HealthStub(self._channels.get(address))
            try:
                with translated(self._rotation.named(address)):
                    status = to_health(stub.Check(request, timeout=deadline, metadata=self._metadata))  # type: ignore[attr-defined]
            except NotFound:
                status = Health.SERVICE_UNKNOWN
            if status is not Health.SERVING:
                break
        return status

    @property
    def _metadata(self) -> Metadata:
        return with_context(self._connection.metadata())

    def _stub(self, address: Address) -> tokenizer_pb2_grpc.TokenizerServiceStub:
        return tokenizer_pb2_grpc.TokenizerServiceStub(self._channels.get(address))

    def _call(self, method: str, request: Message, seconds: float, to_result: Callable[[Any], T]) -> T:
        """The result of a method, which is called again at another server, or when the server asks for that."""
        attempts = Failover(self._rotation, self._connection, seconds)

        def call(left: float) -> T:
            with translated(attempts.named):
                stub = self._stub(attempts.address)
                return to_result(getattr(stub, method)(request, timeout=left, metadata=self._metadata))

        return call_with_retries(call, attempts, self._sleep)

    def _request(self, structure: Structure, options: TokenizeOptions) -> tokenizer_pb2.TokenizeRequest:
        request = to_request(structure, options, self._connection.max_message_bytes)
        self._check_size(request, "structure")
        return request

    def _check_size(self, request: Request, what: str) -> None:
        if request.ByteSize() > ASK_LIMIT_ABOVE:
            check_size(request, message_limit(self._connection, self._known().limits), what)

    def _known(self) -> ModelInfo:
        """The server's model, fetched once; for vocabulary and limits, which do not change."""
        if self._served is None:
            self._served = self.model()
        return self._served
