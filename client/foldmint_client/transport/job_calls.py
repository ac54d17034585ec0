"""The calls of a job, shared by both clients: to each server a stream, or the call by which it is reached."""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from foldmint.v1 import tokenizer_pb2
from foldmint_client.errors import FoldmintError
from foldmint_client.transport.server_pool import Server
from foldmint_client.transport.stream_state import InFlightTracker, Message

Received = tokenizer_pb2.TokenizeStreamResponse | tokenizer_pb2.GetModelResponse | FoldmintError
Deliver = Callable[[Received], None]
"""Takes what a call receives; the last is an error, unless the call is one that reaches a server, or was cancelled."""


class Stream(Protocol):
    """A call of TokenizeStream."""

    def send(self, message: Message) -> None:
        """Queue a message."""

    def cancel(self) -> None:
        """End the call, whatever its state."""


class Probe(Protocol):
    """A call of GetModel."""

    def cancel(self) -> None:
        """End the call, whatever its state."""


S = TypeVar("S", bound=Stream)


class Event(NamedTuple):
    """What a call to a server received. call: its number."""

    server: Server
    call: int
    received: Received


class JobCalls(Generic[S]):
    """Opens and ends calls as the tracker decides, and tells it what they receive.

    open_stream, probe: begin a call to a server. deliver: takes events, from any thread; they come back to `handle`.
    """

    def __init__(
        self,
        tracker: InFlightTracker[Any],
        open_stream: Callable[[Server, Deliver], S],
        probe: Callable[[Server, Deliver], Probe],
        deliver: Callable[[Event], None],
    ) -> None:
        self._tracker, self._open_stream, self._probe, self._deliver = tracker, open_stream, probe, deliver
        self._streams: dict[Server, S] = {}
        self._probes: dict[Server, Probe] = {}
        self._calls: dict[Server, int] = {}  # the number of the call to each server
        self._begun = 0

    @property
    def streams(self) -> list[S]:
        """The streams that are open."""
        return [*self._streams.values()]

    def act(self) -> None:
        """Reach servers, and send what is to be sent."""
        for server in self._tracker.to_connect():
            self._probes[server] = self._probe(server, self._deliver_from(server))
        for server, message in self._tracker.to_send():
            stream = self._streams.get(server)
            if stream is None:
                stream = self._streams[server] = self._open_stream(server, self._deliver_from(server))
            stream.send(message)

    def handle(self, event: Event) -> None:
        """Record what a call received, unless it was given up. Raises FoldmintError if the job cannot go on."""
        if self._calls.get(event.server) != event.call:
            return
        if isinstance(event.received, tokenizer_pb2.TokenizeStreamResponse):
            self._tracker.record_response(event.server, event.received)
            return
        self._end(event.server)
        if isinstance(event.received, FoldmintError):
            self._tracker.record_broken(event.server, event.received)
        else:
            self._tracker.record_reached(event.server, event.received)

    def end_silent(self) -> None:
        """End the streams of servers that answered nothing in time. Raises FoldmintError if the job cannot go on."""
        for server in self._tracker.silent():
            self._end(server)

    def cancel(self) -> None:
        """End all calls."""
        for server in [*self._calls]:
            self._end(server)

    def _end(self, server: Server) -> None:
        del self._calls[server]
        for call in (self._streams.pop(server, None), self._probes.pop(server, None)):
            if call is not None:
                call.cancel()

    def _deliver_from(self, server: Server) -> Deliver:
        self._begun += 1
        number = self._calls[server] = self._begun
        return lambda received: self._deliver(Event(server, number, received))
