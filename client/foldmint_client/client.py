"""The client for programs that wait for their answers."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foldmint.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_client.connection import Connection, ConnectionOptions
from foldmint_client.errors import FoldmintError, Unavailable
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
from foldmint_client.transport.common import (
    ASK_LIMIT_ABOVE,
    LOCAL_ERRORS,
    Sleep,
    is_unknown_service,
    keyed,
    message_limit,
    open_channel,
    to_health,
)
from foldmint_client.transport.retry import call_with_retries
from foldmint_client.transport.status import from_rpc_error, translated
from foldmint_client.transport.stream_state import InFlightTracker, Message, Result
from foldmint_client.transport.trace_context import Metadata, with_context

K = TypeVar("K")
T = TypeVar("T")

_FAREWELL = 1.0  # seconds that the server has to end a stream that is over; then it is cancelled


class Client:
    """A connection to a Foldmint server; threads may share it.

    target: HOST:PORT. Keywords: timeout=60.0, tls=None, token=None, retry=Retry(), max_message_bytes=256 MiB,
    keepalive=300.0, channel_options=(); see `foldmint_client.connection.Connection`. sleep: how to wait before a retry.
    Nothing is sent before the first call. Every method raises FoldmintError, and no error of gRPC's.
    """

    def __init__(self, target: str, *, sleep: Sleep = time.sleep, **options: Unpack[ConnectionOptions]) -> None:
        self._connection = Connection(target, **options)
        self._sleep = sleep
        self._channel = open_channel(self._connection)
        self._tokenizer = tokenizer_pb2_grpc.TokenizerServiceStub(self._channel)
        self._served: ModelInfo | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that are under way are cancelled."""
        self._channel.close()

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
        request = self._request(structure, TokenizeOptions(**options))
        response = self._call(self._tokenizer.Tokenize, request, deadline)
        return to_tokens(response, request)

    @overload
    def tokenize_many(  # type: ignore[overload-overlap]  # a pair is taken for a key and a structure
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
        """The tokens of many structures over one stream, each with its key, or with the error that it failed with.

        structures: structures as `tokenize` takes them, or pairs (key, structure); without keys, positions from 0 are
        the keys. They are pulled in the caller's thread, as room comes: never are more than `in_flight` pulled and not
        returned. ordered: results come in the input's order, otherwise as they are ready. timeout: the longest wait
        for any answer; what is unanswered then fails with DeadlineExceeded. Keywords as of `tokenize`.

        A structure that the server refuses for now is sent again after a pause, `Retry.refused_attempts` times in all.
        If the stream breaks with UNAVAILABLE or RESOURCE_EXHAUSTED, another is opened and what is unanswered sent
        again, until `Retry.attempts` streams have broken with no answer between. Raises FoldmintError only if the
        stream cannot go on: then, or for any other reason that it broke, or after two timeouts in a row.
        """
        tracker: InFlightTracker[Any] = InFlightTracker(in_flight, ordered, self._connection.retry)
        return self._stream(structures, tracker, TokenizeOptions(**options), self._connection.deadline(timeout))

    def detokenize(
        self, tokens: TokenInput, *, timeout: float | None = None, **options: Unpack[DetokenizeKeywords]
    ) -> Decoded:
        """The structure that tokens stand for, and how far to trust it.

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
        response = self._call(self._tokenizer.Detokenize, request, deadline)
        return to_decoded(response, request)

    def model(self, *, timeout: float | None = None) -> ModelInfo:
        """What the server serves: model, codebook, vocabulary and limits."""
        deadline = self._connection.deadline(timeout)
        with translated():
            response = self._tokenizer.GetModel(
                tokenizer_pb2.GetModelRequest(), timeout=deadline, metadata=self._metadata
            )
        return to_model(response)

    def health(self, service: str = "", *, timeout: float | None = None) -> Health:
        """What the server says of its health. service: `foldmint.v1.TokenizerService`, or empty for the server."""
        deadline = self._connection.deadline(timeout)
        request = health_pb2.HealthCheckRequest(service=service)
        stub = health_pb2_grpc.HealthStub(self._channel)
        try:
            return to_health(stub.Check(request, timeout=deadline, metadata=self._metadata))  # type: ignore[attr-defined]
        except grpc.RpcError as error:
            if is_unknown_service(error):
                return Health.SERVICE_UNKNOWN
            raise from_rpc_error(error) from error

    @property
    def _metadata(self) -> Metadata:
        return with_context(self._connection.metadata())

    def _call(self, method: Callable[..., T], request: Request, seconds: float) -> T:
        """The answer of a method, for which it may be asked again when the server says so."""

        def call(left: float) -> T:
            with translated():
                return method(request, timeout=left, metadata=self._metadata)

        return call_with_retries(call, seconds, self._connection.retry, self._sleep)

    def _request(self, structure: Structure, options: TokenizeOptions) -> tokenizer_pb2.TokenizeRequest:
        request = to_request(structure, options, self._connection.max_message_bytes)
        self._check_size(request, "structure")
        return request

    def _check_size(self, request: Request, what: str) -> None:
        if request.ByteSize() > ASK_LIMIT_ABOVE:
            check_size(request, message_limit(self._connection, self._known().limits), what)

    def _known(self) -> ModelInfo:
        """What the server serves, asked for once: of use for what does not change, vocabulary and limits."""
        if self._served is None:
            self._served = self.model()
        return self._served

    def _open(self, messages: Iterable[Message] = ()) -> "_Stream":
        stream = _Stream(lambda outbox: self._tokenizer.TokenizeStream(outbox, metadata=self._metadata))
        for message in messages:
            stream.send(message)
        return stream

    def _stream(
        self, structures: Iterable[Any], tracker: InFlightTracker[Any], options: TokenizeOptions, timeout: float
    ) -> Generator[tuple[Any, Result]]:
        items = enumerate(structures)
        stream: _Stream | None = None
        over = False
        try:
            while not (over and tracker.empty):
                while tracker.has_room and not over:
                    item = next(items, None)
                    if item is None:
                        over = True
                        break
                    key, structure = keyed(*item)
                    try:
                        request = self._request(structure, options)
                    except LOCAL_ERRORS as error:
                        tracker.add_failed(key, error)
                        continue
                    stream = stream or self._open()
                    stream.send(tracker.add(key, request))
                if stream is not None and tracker.unanswered:
                    stream = self._receive(stream, tracker, timeout)
                yield from tracker.ready()
            if stream is not None:
                stream.finish()
        finally:
            if stream is not None:
                stream.cancel()

    def _receive(self, stream: "_Stream", tracker: InFlightTracker[Any], timeout: float) -> "_Stream":
        """Send what is due, and wait for one answer. Returns the stream to go on with."""
        delay, messages = tracker.due_retries()
        if delay:
            self._sleep(delay)
        for message in messages:
            stream.send(message)
        try:
            response = stream.receive(timeout)
        except FoldmintError as error:
            stream.cancel()
            self._sleep(tracker.stream_broken(error))
            return self._open(tracker.resend())
        if response is None:
            stream.cancel()
            tracker.timed_out(timeout)
            return self._open(tracker.resend())
        tracker.record_response(response)
        return stream


class _Stream:
    """One call of TokenizeStream, read by a thread of its own so that there is an end to waiting for an answer."""

    def __init__(self, call: Callable[[Iterator[Message]], Any]) -> None:
        self._outbox: SimpleQueue[Message | None] = SimpleQueue()
        self._inbox: SimpleQueue[tokenizer_pb2.TokenizeStreamResponse | FoldmintError] = SimpleQueue()
        with translated():
            self._call: Any = call(iter(self._outbox.get, None))
        self._reader = Thread(target=self._read, args=(self._call,), name="foldmint-stream", daemon=True)
        self._reader.start()

    def send(self, message: Message) -> None:
        """Queue a message; what is queued is bounded by the tracker."""
        self._outbox.put(message)

    def receive(self, timeout: float) -> tokenizer_pb2.TokenizeStreamResponse | None:
        """The next answer, or none in time. Raises FoldmintError if the stream broke or ended."""
        try:
            received = self._inbox.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(received, FoldmintError):
            raise received
        return received

    def finish(self) -> None:
        """Say that nothing more comes, and let the server end the call."""
        self._outbox.put(None)
        self._reader.join(_FAREWELL)

    def cancel(self) -> None:
        """End the call, whatever its state, and let go of it.

        gRPC's call takes a lock when it is deleted. If that is left to the end of the program, a thread that died with
        the lock in its hands makes the program wait for ever; so it is deleted here, while all threads live.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
            self._outbox.put(None)  # wakes gRPC's own thread, which waits for messages
            self._reader.join(_FAREWELL)

    def _read(self, call: Any) -> None:  # noqa: ANN401 (the call's own class is private)
        try:
            for response in call:
                self._inbox.put(response)
        except grpc.RpcError as error:
            self._inbox.put(from_rpc_error(error))
            error.__traceback__ = None  # the error is the call, which its own traceback would keep alive
        else:
            self._inbox.put(Unavailable("the server ended the stream before it had answered everything"))
