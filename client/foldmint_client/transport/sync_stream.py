"""The blocking client's end of TokenizeStream."""

from collections.abc import Callable, Generator, Iterable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import grpc

from foldmint.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_client.addresses import Address
from foldmint_client.errors import Unavailable
from foldmint_client.models.tokenize_request import Structure
from foldmint_client.transport.common import ENDED_EARLY, FAREWELL_SECONDS, LOCAL_ERRORS, Sleep, keyed
from foldmint_client.transport.job_calls import Deliver, Event, JobCalls
from foldmint_client.transport.status import from_rpc_error, translated
from foldmint_client.transport.stream_state import InFlightTracker, Message, Result
from foldmint_client.transport.trace_context import Metadata

Prepare = Callable[[Structure], tokenizer_pb2.TokenizeRequest]
Stub = tokenizer_pb2_grpc.TokenizerServiceStub


class Stream:
    """One call of TokenizeStream; a thread of its own reads it, so that waiting for an answer can time out."""

    def __init__(self, tokenizer: "Stub", metadata: Metadata, deliver: Deliver) -> None:
        self._outbox: SimpleQueue[Message | None] = SimpleQueue()
        self._deliver = deliver
        with translated():
            self._call: Any = tokenizer.TokenizeStream(iter(self._outbox.get, None), metadata=metadata)
        self._reader = Thread(target=self._read, args=(self._call,), name="foldmint-stream", daemon=True)
        self._reader.start()

    def send(self, message: Message) -> None:
        """Queue a message; the in-flight tracker bounds the queue."""
        self._outbox.put(message)

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
                self._deliver(response)
        except grpc.RpcError as error:
            self._deliver(from_rpc_error(error))
            error.__traceback__ = None  # the error is the call, which its own traceback would keep alive
        else:
            self._deliver(Unavailable(ENDED_EARLY))


class Probe:
    """One call of GetModel, which does not block."""

    def __init__(self, tokenizer: "Stub", metadata: Metadata, timeout: float, deliver: Deliver) -> None:
        self._deliver = deliver
        with translated():
            self._call: Any = tokenizer.GetModel.future(
                tokenizer_pb2.GetModelRequest(), timeout=timeout, metadata=metadata
            )
        self._call.add_done_callback(self._done)

    def cancel(self) -> None:
        """End the call, whatever its state, and release it."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _done(self, call: Any) -> None:  # noqa: ANN401
        try:
            self._deliver(call.result())
        except grpc.RpcError as error:
            self._deliver(from_rpc_error(error))
            error.__traceback__ = None
        except grpc.FutureCancelledError:
            pass  # by `cancel`, when nobody listens any more


class StreamJob:
    """One call of `tokenize_many`.

    prepare: a structure's request; it may raise one of LOCAL_ERRORS. resolve: the addresses of the servers. stub: of a
    server. metadata: of a call that begins now.
    """

    def __init__(
        self,
        structures: Iterable[Any],
        tracker: InFlightTracker[Any],
        prepare: Prepare,
        resolve: Callable[[], Sequence[Address]],
        stub: Callable[[Address], "Stub"],
        metadata: Callable[[], Metadata],
        sleep: Sleep,
        timeout: float,
    ) -> None:
        self._items = enumerate(structures)
        self._tracker, self._prepare, self._resolve = tracker, prepare, resolve
        self._sleep = sleep
        self._inbox: SimpleQueue[Event] = SimpleQueue()
        self._calls = JobCalls(
            tracker,
            lambda server, deliver: Stream(stub(server.address), metadata(), deliver),
            lambda server, deliver: Probe(stub(server.address), metadata(), timeout, deliver),
            self._inbox.put,
        )
        self._exhausted = False

    def results(self) -> Generator[tuple[Any, Result]]:
        """Keys and results. Raises FoldmintError if the job cannot go on."""
        tracker = self._tracker
        try:
            while not (self._exhausted and tracker.empty):
                pulling = tracker.has_room and not self._exhausted
                if pulling:
                    self._pull()
                self._act()
                if pulling:
                    self._receive(0.0)
                elif tracker.unanswered:
                    self._wait()
                for result in tracker.ready():
                    yield result
                    tracker.attend()
            for stream in self._calls.streams:
                stream.finish()
        finally:
            self._calls.cancel()

    def _pull(self) -> None:
        """Pull one structure into the tracker."""
        item = next(self._items, None)
        if item is None:
            self._exhausted = True
            return
        key, structure = keyed(*item)
        try:
            request = self._prepare(structure)
        except LOCAL_ERRORS as error:
            self._tracker.add_failed(key, error)
        else:
            self._tracker.add(key, request)

    def _act(self) -> None:
        """Send what is to be sent, to servers that are looked up if need be."""
        if not self._tracker.unanswered:
            return
        if self._tracker.pool.refresh_due:
            self._tracker.pool.update(self._resolve())
        self._calls.act()

    def _wait(self) -> None:
        """Wait for an event, or until something is due."""
        wait = self._tracker.wait()
        if not wait.at_work:
            if wait.seconds:
                self._sleep(wait.seconds)
        elif not self._receive(wait.seconds):
            self._calls.end_silent()

    def _receive(self, timeout: float) -> bool:
        """Handle the next event. Returns False if there is none in time."""
        try:
            event = self._inbox.get(timeout=timeout)
        except Empty:
            return False
        self._calls.handle(event)
        return True
