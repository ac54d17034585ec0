"""The blocking client's end of TokenizeStream."""

from collections.abc import Callable, Generator, Iterable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import grpc

from foldmint.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_client.errors import FoldmintError, Unavailable
from foldmint_client.models.tokenize_request import Structure
from foldmint_client.transport.common import ENDED_EARLY, FAREWELL_SECONDS, LOCAL_ERRORS, Sleep, keyed
from foldmint_client.transport.status import from_rpc_error, translated
from foldmint_client.transport.stream_state import InFlightTracker, Message, Result
from foldmint_client.transport.trace_context import Metadata

Prepare = Callable[[Structure], tokenizer_pb2.TokenizeRequest]


class Stream:
    """One call of TokenizeStream; a thread of its own reads it, so that waiting for an answer can time out."""

    def __init__(self, tokenizer: "tokenizer_pb2_grpc.TokenizerServiceStub", metadata: Metadata) -> None:
        self._outbox: SimpleQueue[Message | None] = SimpleQueue()
        self._inbox: SimpleQueue[tokenizer_pb2.TokenizeStreamResponse | FoldmintError] = SimpleQueue()
        with translated():
            self._call: Any = tokenizer.TokenizeStream(iter(self._outbox.get, None), metadata=metadata)
        self._reader = Thread(target=self._read, args=(self._call,), name="foldmint-stream", daemon=True)
        self._reader.start()

    def send(self, message: Message) -> None:
        """Queue a message; the in-flight tracker bounds the queue."""
        self._outbox.put(message)

    def receive(self, timeout: float) -> tokenizer_pb2.TokenizeStreamResponse | None:
        """The next answer; None if there is none in time. Raises FoldmintError if the stream broke or ended."""
        try:
            received = self._inbox.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(received, FoldmintError):
            raise received
        return received

    def finish(self) -> None:
        """Close the sending side, and let the server end the call."""
        self._outbox.put(None)
        self._reader.join(FAREWELL_SECONDS)

    def cancel(self) -> None:
        """End the call, whatever its state, and release it.

        gRPC's call takes a lock when it is deleted. Deleted at interpreter exit, it may wait forever for a thread that
        died holding the lock; so it is deleted here, while all threads live.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
            self._outbox.put(None)  # wakes gRPC's own thread, which waits for messages
            self._reader.join(FAREWELL_SECONDS)

    def _read(self, call: Any) -> None:  # noqa: ANN401 (the call's own class is private)
        try:
            for response in call:
                self._inbox.put(response)
        except grpc.RpcError as error:
            self._inbox.put(from_rpc_error(error))
            error.__traceback__ = None  # the error is the call, which its own traceback would keep alive
        else:
            self._inbox.put(Unavailable(ENDED_EARLY))


class StreamJob:
    """One call of `tokenize_many`. prepare: a structure's request; it may raise one of LOCAL_ERRORS."""

    def __init__(
        self,
        structures: Iterable[Any],
        tracker: InFlightTracker[Any],
        prepare: Prepare,
        open_stream: Callable[[], Stream],
        sleep: Sleep,
        timeout: float,
    ) -> None:
        self._items = enumerate(structures)
        self._tracker, self._prepare, self._open_stream = tracker, prepare, open_stream
        self._sleep, self._timeout = sleep, timeout
        self._stream: Stream | None = None
        self._exhausted = False

    def results(self) -> Generator[tuple[Any, Result]]:
        """Keys and results. Raises FoldmintError if the stream cannot go on."""
        try:
            while not (self._exhausted and self._tracker.empty):
                while self._tracker.has_room and not self._exhausted:
                    self._pull()
                if self._stream is not None and self._tracker.unanswered:
                    self._stream = self._receive(self._stream)
                yield from self._tracker.ready()
            if self._stream is not None:
                self._stream.finish()
        finally:
            if self._stream is not None:
                self._stream.cancel()

    def _pull(self) -> None:
        """Pull one structure into the tracker, and send it."""
        item = next(self._items, None)
        if item is None:
            self._exhausted = True
            return
        key, structure = keyed(*item)
        try:
            request = self._prepare(structure)
        except LOCAL_ERRORS as error:
            self._tracker.add_failed(key, error)
            return
        self._stream = self._stream or self._open_stream()
        self._stream.send(self._tracker.add(key, request))

    def _receive(self, stream: Stream) -> Stream:
        """Send what is due, and wait for one answer. Returns the stream to continue with."""
        delay, messages = self._tracker.due_retries()
        if delay:
            self._sleep(delay)
        self._send(stream, messages)
        try:
            response = stream.receive(self._timeout)
        except FoldmintError as error:
            stream.cancel()
            self._sleep(self._tracker.stream_broken(error))
        else:
            if response is not None:
                self._tracker.record_response(response)
                return stream
            stream.cancel()
            self._tracker.timed_out()
        return self._send(self._open_stream(), self._tracker.resend())

    @staticmethod
    def _send(stream: Stream, messages: Iterable[Message]) -> Stream:
        for message in messages:
            stream.send(message)
        return stream
