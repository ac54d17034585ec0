"""The client for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
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
from foldmint_client.transport.async_stream import StreamJob
from foldmint_client.transport.channels import Channels, open_aio_channel, resolve_async
from foldmint_client.transport.common import (
    ASK_LIMIT_ABOVE,
    AsyncSleep,
    message_limit,
    to_health,
)
from foldmint_client.transport.failover import Failover, Rotation
from foldmint_client.transport.retry import await_with_retries
from foldmint_client.transport.status import translated
from foldmint_client.transport.stream_state import InFlightTracker, Result
from foldmint_client.transport.trace_context import Metadata, with_context

K = TypeVar("K")
T = TypeVar("T")


class AsyncClient:
    """A connection to a Foldmint server, or to several, for one event loop; tasks may share it.

    Options and results are those of `foldmint_client.Client`, and so are the methods, to be awaited. The connection
    belongs to the event loop of the first call.
    """

    def __init__(self, target: str, *, sleep: AsyncSleep = asyncio.sleep, **options: Unpack[ConnectionOptions]) -> None:
        self._connection = Connection(target, **options)
        if self._connection.tls is not None:
            self._connection.tls.credentials()  # files are read at once, and channels belong to the event loop
        self._sleep = sleep
        self._channels = Channels(self._connection, open_aio_channel)
        self._rotation = Rotation(self._connection)
        self._served: ModelInfo | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that are under way are cancelled."""
        await asyncio.gather(*(channel.close() for channel in self._channels.opened))

    async def tokenize(
        self,
        structure: Structure,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 (gRPC's deadline, which the server learns of)
        **options: Unpack[TokenizeKeywords],
    ) -> Tokens:
        """The tokens of one structure; see `foldmint_client.Client.tokenize`."""
        deadline = self._connection.deadline(timeout)
        request_options = TokenizeOptions(**options)
        request = await self._request(structure, request_options)
        version = request_options.version
        return await self._call("Tokenize", request, deadline, lambda response: to_tokens(response, request, version))

    @overload
    def tokenize_many(  # type: ignore[overload-overlap]  # a pair means a key and a structure
        self,
        structures: Iterable[tuple[K, Structure]] | AsyncIterable[tuple[K, Structure]],
        *,
        in_flight: int = ...,
        ordered: bool = ...,
        timeout: float | None = ...,
        **options: Unpack[TokenizeKeywords],
    ) -> AsyncGenerator[tuple[K, Result]]: ...
    @overload
    def tokenize_many(
        self,
        structures: Iterable[Structure] | AsyncIterable[Structure],
        *,
        in_flight: int = ...,
        ordered: bool = ...,
        timeout: float | None = ...,
        **options: Unpack[TokenizeKeywords],
    ) -> AsyncGenerator[tuple[int, Result]]: ...
    def tokenize_many(
        self,
        structures: Iterable[Any] | AsyncIterable[Any],
        *,
        in_flight: int = 64,
        ordered: bool = True,
        timeout: float | None = None,
        **options: Unpack[TokenizeKeywords],
    ) -> AsyncGenerator[tuple[Any, Result]]:
        """The tokens of many structures; see `foldmint_client.Client.tokenize_many`.

        The input may be an async iterable too; results come out while it makes the next structure wait. Close the
        generator (contextlib.aclosing) if it is left early.
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
            lambda: resolve_async(self._connection),
            self._stub,
            lambda: self._metadata,
            self._sleep,
            wait,
        )
        return job.results()

    async def detokenize(
        self,
        tokens: TokenInput,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        **options: Unpack[DetokenizeKeywords],
    ) -> Decoded:
        """The structure that tokens encode; see `foldmint_client.Client.detokenize`."""
        deadline = self._connection.deadline(timeout)
        chainbreak = (await self._known()).vocabulary.chainbreak if needs_chainbreak(tokens) else 0
        most = self._connection.max_message_bytes
        request = to_detokenize_request(tokens, DetokenizeOptions(**options), chainbreak, most)
        await self._check_size(request, "tokens")
        return await self._call("Detokenize", request, deadline, lambda response: to_decoded(response, request))

    async def model(self, *, timeout: float | None = None) -> ModelInfo:  # noqa: ASYNC109
        """The server's model, codebook, vocabulary and limits."""
        deadline = self._connection.deadline(timeout)
        return await self._call("GetModel", tokenizer_pb2.GetModelRequest(), deadline, to_model)

    async def health(self, service: str = "", *, timeout: float | None = None) -> Health:  # noqa: ASYNC109
        """The server's health; see `foldmint_client.Client.health`."""
        status, deadline = Health.SERVING, self._connection.deadline(timeout)
        request = health_pb2.HealthCheckRequest(service=service)
        for address in self._rotation.addresses:
            stub = health_pb2_grpc.HealthStub(self._channels.get(address))
            try:
                with translated(self._rotation.named(address)):
                    status = to_health(await stub.Check(request, timeout=deadline, metadata=self._metadata))  # type: ignore[attr-defined]
            except NotFound:
                status = Health.SERVICE_UNKNOWN
            if status is not Health.SERVING:
                break
        return status

    @property
    def _metadata(self) -> Metadata:
        return with_context(self._connection.metadata())

    def _stub(self, address: Address) -> "tokenizer_pb2_grpc.TokenizerServiceAsyncStub":
        return tokenizer_pb2_grpc.TokenizerServiceStub(self._channels.get(address))

    async def _call(self, method: str, request: Message, seconds: float, to_result: Callable[[Any], T]) -> T:
        """The result of a method, which is called again at another server, or when the server asks for that."""
        attempts = Failover(self._rotation, self._connection, seconds)

        async def call(left: float) -> T:
            with translated(attempts.named):
                stub = self._stub(attempts.address)
                return to_result(await getattr(stub, method)(request, timeout=left, metadata=self._metadata))

        return await await_with_retries(call, attempts, self._sleep)

    async def _request(self, structure: Structure, options: TokenizeOptions) -> tokenizer_pb2.TokenizeRequest:
        # In a thread, for it may read a file.
        request = await asyncio.to_thread(to_request, structure, options, self._connection.max_message_bytes)
        await self._check_size(request, "structure")
        return request

    async def _check_size(self, request: Request, what: str) -> None:
        if request.ByteSize() > ASK_LIMIT_ABOVE:
            check_size(request, message_limit(self._connection, (await self._known()).limits), what)

    async def _known(self) -> ModelInfo:
        """The server's model, fetched once; for vocabulary and limits, which do not change."""
        if self._served is None:
            self._served = await self.model()
        return self._served
