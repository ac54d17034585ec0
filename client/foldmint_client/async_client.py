"""The client for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foldmint.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_client.connection import Connection, ConnectionOptions
from foldmint_client.errors import Cancelled, FoldmintError
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
from foldmint_client.transport.async_stream import Stream
from foldmint_client.transport.common import (
    ASK_LIMIT_ABOVE,
    LOCAL_ERRORS,
    AsyncSleep,
    is_unknown_service,
    keyed,
    message_limit,
    to_health,
)
from foldmint_client.transport.retry import await_with_retries
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
        request = await self._request(structure, TokenizeOptions(**options))
        response = await self._call(self._tokenizer.Tokenize, request, deadline)
        return to_tokens(response, request)

    @overload
    def tokenize_many(  # type: ignore[overload-overlap]  # a pair is taken for a key and a structure
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
        tracker: InFlightTracker[Any] = InFlightTracker(in_flight, ordered, self._connection.retry)
        job = _Job(self, structures, tracker, TokenizeOptions(**options), self._connection.deadline(timeout))
        return job.results()

    async def detokenize(
        self,
        tokens: TokenInput,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        **options: Unpack[DetokenizeKeywords],
    ) -> Decoded:
        """The structure that tokens stand for; see `foldmint_client.Client.detokenize`."""
        deadline = self._connection.deadline(timeout)
        chainbreak = (await self._known()).vocabulary.chainbreak if needs_chainbreak(tokens) else 0
        most = self._connection.max_message_bytes
        request = to_detokenize_request(tokens, DetokenizeOptions(**options), chainbreak, most)
        await self._check_size(request, "tokens")
        response = await self._call(self._tokenizer.Detokenize, request, deadline)
        return to_decoded(response, request)

    async def model(self, *, timeout: float | None = None) -> ModelInfo:  # noqa: ASYNC109
        """What the server serves: model, codebook, vocabulary and limits."""
        deadline = self._connection.deadline(timeout)
        with translated():
            response = await self._tokenizer.GetModel(
                tokenizer_pb2.GetModelRequest(), timeout=deadline, metadata=self._metadata
            )
        return to_model(response)

    async def health(self, service: str = "", *, timeout: float | None = None) -> Health:  # noqa: ASYNC109
        """What the server says of its health; see `foldmint_client.Client.health`."""
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

    async def _call(self, method: Callable[..., Awaitable[T]], request: Request, seconds: float) -> T:
        """The answer of a method, for which it may be asked again when the server says so."""

        async def call(left: float) -> T:
            with translated():
                return await method(request, timeout=left, metadata=self._metadata)

        return await await_with_retries(call, seconds, self._connection.retry, self._sleep)

    async def _request(self, structure: Structure, options: TokenizeOptions) -> tokenizer_pb2.TokenizeRequest:
        # In a thread, for it may read a file.
        request = await asyncio.to_thread(to_request, structure, options, self._connection.max_message_bytes)
        await self._check_size(request, "structure")
        return request

    async def _check_size(self, request: Request, what: str) -> None:
        if request.ByteSize() > ASK_LIMIT_ABOVE:
            check_size(request, message_limit(self._connection, (await self._known()).limits), what)

    async def _known(self) -> ModelInfo:
        """What the server serves, asked for once: of use for what does not change, vocabulary and limits."""
        if self._served is None:
            self._served = await self.model()
        return self._served

    def _open(self) -> Stream:
        return Stream(self._tokenizer, self._metadata)


class _Job:
    """One call of `tokenize_many`: it pulls the input and waits for answers at the same time."""

    def __init__(
        self,
        client: AsyncClient,
        structures: Iterable[Any] | AsyncIterable[Any],
        tracker: InFlightTracker[Any],
        options: TokenizeOptions,
        timeout: float,
    ) -> None:
        self._client, self._tracker, self._options, self._timeout = client, tracker, options, timeout
        self._items = _positions(structures)
        self._stream: Stream | None = None
        self._pulling: asyncio.Task[bool] | None = None
        self._receiving: asyncio.Task[tokenizer_pb2.TokenizeStreamResponse] | None = None
        self._deadline = 0.0
        self._over = False

    async def results(self) -> AsyncGenerator[tuple[Any, Result]]:
        tracker = self._tracker
        try:
            while not (self._over and tracker.empty):
                if self._pulling is None and tracker.has_room and not self._over:
                    self._pulling = asyncio.create_task(self._pull())
                if self._receiving is None and tracker.unanswered:
                    await self._ask()
                await self._wait()
                for result in tracker.ready():
                    yield result
            if self._stream is not None:
                await self._stream.finish()
        finally:
            await self._stop()

    async def _pull(self) -> bool:
        """Pull one structure into the tracker. Returns whether there was one."""
        try:
            key, structure = keyed(*await anext(self._items))
        except StopAsyncIteration:
            return False
        try:
            request = await self._client._request(structure, self._options)  # noqa: SLF001 (its other half)
        except LOCAL_ERRORS as error:
            self._tracker.add_failed(key, error)
            return True
        message = self._tracker.add(key, request)
        if self._stream is not None:
            self._stream.send(message)
        return True

    async def _ask(self) -> None:
        """Send what is due, and begin to wait for an answer."""
        if self._stream is None:
            self._stream = self._client._open()  # noqa: SLF001
            for message in self._tracker.resend():
                self._stream.send(message)
        delay, messages = self._tracker.due_retries()
        if delay:
            await self._client._sleep(delay)  # noqa: SLF001
        for message in messages:
            self._stream.send(message)
        self._deadline = asyncio.get_running_loop().time() + self._timeout
        self._receiving = asyncio.create_task(self._stream.receive())

    async def _wait(self) -> None:
        """Wait until a structure is pulled or an answer comes, and take it in."""
        waiting = [task for task in (self._pulling, self._receiving) if task is not None]
        if not waiting:
            return
        left = None if self._receiving is None else max(0.0, self._deadline - asyncio.get_running_loop().time())
        done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if self._pulling in done:
            pulling, self._pulling = self._pulling, None
            self._over = not pulling.result()
        if self._receiving in done:
            receiving, self._receiving = self._receiving, None
            try:
                if receiving.cancelled():
                    raise Cancelled("the connection was closed")
                response = receiving.result()
            except FoldmintError as error:
                self._drop()
                await self._client._sleep(self._tracker.stream_broken(error))  # noqa: SLF001
            else:
                self._tracker.record_response(response)
        elif not done:
            await self._stop_receiving()
            self._drop()
            self._tracker.timed_out(self._timeout)

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    async def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
            self._receiving = None

    async def _stop(self) -> None:
        self._drop()
        await self._stop_receiving()
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.gather(self._pulling, return_exceptions=True)


async def _positions(structures: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[tuple[int, Any]]:
    position = 0
    if isinstance(structures, AsyncIterable):
        async for item in structures:
            yield position, item
            position += 1
    else:
        for item in structures:
            yield position, item
            position += 1
