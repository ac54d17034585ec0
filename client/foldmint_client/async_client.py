"""The client for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foldmint.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_client.connection import Connection, ConnectionOptions
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
from foldmint_client.transport.async_stream import Stream, StreamJob
from foldmint_client.transport.common import (
    ASK_LIMIT_ABOVE,
    AsyncSleep,
    is_unknown_service,
    message_limit,
    to_health,
)
from foldmint_client.transport.retry import await_with_retries, server_paced
from foldmint_client.transport.status import from_rpc_error, translated
from foldmint_client.transport.stream_state import InFlightTracker, Result
from foldmint_client.transport.trace_context import Metadata, with_context

K = TypeVar("K")
T = TypeVar("T")


class AsyncClient:
    """A connection to a Foldmint server, for one event loop; tasks may share it.

    Options and results are those of `foldmint_client.Client`, and so are the methods, to be awaited. The connection
    belongs to the event loop of the first call.
    """

    def __init__(self, target: str, *, sleep: AsyncSleep = asyncio.sleep, **options: Unpack[ConnectionOptions]) -> None:
        self._connection = Connection(target, **options)
        self._credentials = None if self._connection.tls is None else self._connection.tls.credentials()
        self._sleep = sleep
        self._opened: grpc.aio.Channel | None = None
        self._served: ModelInfo | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that are under way are cancelled."""
        if self._opened is not None:
            await self._opened.close()

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
        response = await self._call(self._tokenizer.Tokenize, request, deadline)
        return to_tokens(response, request, request_options.version)

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
        """The tokens of many structures over one stream; see `foldmint_client.Client.tokenize_many`.

        The input may be an async iterable too; results come out while it makes the next structure wait. Close the
        generator (contextlib.aclosing) if it is left early.
        """
        wait, request_options = self._connection.deadline(timeout), TokenizeOptions(**options)
        job = StreamJob(
            structures,
            InFlightTracker(in_flight, ordered, self._connection.retry, wait, request_options.version),
            lambda structure: self._request(structure, request_options),
            lambda: Stream(self._tokenizer, self._metadata),
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
        response = await self._call(self._tokenizer.Detokenize, request, deadline)
        return to_decoded(response, request)

    async def model(self, *, timeout: float | None = None) -> ModelInfo:  # noqa: ASYNC109
        """The server's model, codebook, vocabulary and limits."""
        deadline = self._connection.deadline(timeout)
        return to_model(await self._call(self._tokenizer.GetModel, tokenizer_pb2.GetModelRequest(), deadline))

    async def health(self, service: str = "", *, timeout: float | None = None) -> Health:  # noqa: ASYNC109
        """The server's health; see `foldmint_client.Client.health`."""
        deadline = self._connection.deadline(timeout)
        request = health_pb2.HealthCheckRequest(service=service)
        stub = health_pb2_grpc.HealthStub(self._channel)
        try:
            return to_health(await stub.Check(request, timeout=deadline, metadata=self._metadata))  # type: ignore[attr-defined]
        except grpc.RpcError as error:
            if is_unknown_service(error):
                return Health.SERVICE_UNKNOWN
            raise from_rpc_error(error) from error

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:
            target, arguments = self._connection.target, self._connection.channel_arguments()
            if self._credentials is None:
                self._opened = grpc.aio.insecure_channel(target, arguments)
            else:
                self._opened = grpc.aio.secure_channel(target, self._credentials, arguments)
        return self._opened

    @property
    def _tokenizer(self) -> "tokenizer_pb2_grpc.TokenizerServiceAsyncStub":
        return tokenizer_pb2_grpc.TokenizerServiceStub(self._channel)

    @property
    def _metadata(self) -> Metadata:
        return with_context(self._connection.metadata())

    async def _call(self, method: Callable[..., Awaitable[T]], request: Message, seconds: float) -> T:
        """The answer of a method, which is called again when the server asks for that."""

        async def call(left: float) -> T:
            with translated():
                return await method(request, timeout=left, metadata=self._metadata)

        return await await_with_retries(call, server_paced(self._connection.retry, seconds), self._sleep)

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
