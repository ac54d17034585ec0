"""The asyncio client's end of TokenizeStream."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from foldmint.v1 import tokenizer_pb2
from foldmint_client.addresses import Address
from foldmint_client.errors import Cancelled, FoldmintError, Unavailable
from foldmint_client.models.tokenize_request import Structure
from foldmint_client.transport.common import ENDED_EARLY, FAREWELL_SECONDS, LOCAL_ERRORS, AsyncSleep, keyed
from foldmint_client.transport.job_calls import Deliver, Event, JobCalls
from foldmint_client.transport.status import from_parts, from_rpc_error, translated
from foldmint_client.transport.stream_state import InFlightTracker, Message, Result
from foldmint_client.transport.trace_context import Metadata

if TYPE_CHECKING:
    from foldmint.v1.tokenizer_pb2_grpc import TokenizerServiceAsyncStub as Stub

T = TypeVar("T")
Prepare = Callable[[Structure], Awaitable[tokenizer_pb2.TokenizeRequest]]

_CLOSED = "the connection was closed"
_SENDING_FAILED = "Internal error from Core"  # grpc.aio's words


class Stream:
    """One call of TokenizeStream; gRPC's own task sends, so that sending never holds up receiving."""

    def __init__(self, tokenizer: "Stub", metadata: Metadata, deliver: Deliver, tasks: "Tasks") -> None:
        self._outbox: asyncio.Queue[Message | None] = asyncio.Queue()
        self._deliver = deliver
        with translated():
            self._call = tokenizer.TokenizeStream(self._messages(), metadata=metadata)
        self._fate: FoldmintError | None = None
        self._call.add_done_callback(self._note)
        self._reader = tasks.begin(self._read())

    async def _messages(self) -> AsyncIterator[Message]:
        while (message := await self._outbox.get()) is not None:
            yield message

    def send(self, message: Message) -> None:
        """Queue a message; the in-flight tracker bounds the queue."""
        self._outbox.put_nowait(message)

    async def finish(self) -> None:
        """Close the sending side, and let the server end the call."""
        self._outbox.put_nowait(None)
        await asyncio.wait([asyncio.ensure_future(self._call.code())], timeout=FAREWELL_SECONDS)

    def cancel(self) -> None:
        """End the call, whatever its state."""
        self._call.cancel()
        self._outbox.put_nowait(None)
        self._reader.cancel()

    async def _read(self) -> None:
        try:
            while isinstance(response := await self._call.read(), tokenizer_pb2.TokenizeStreamResponse):
                self._deliver(response)
            self._deliver(Unavailable(ENDED_EARLY))
        except grpc.aio.AioRpcError as error:
            self._deliver(self._fate or from_rpc_error(error))
        except asyncio.CancelledError:
            _raise_if_cancelled()
            self._deliver(Cancelled(_CLOSED))

    def _note(self, call: Any) -> None:  # noqa: ANN401 (the call's own class is private)
        # When a call ends while a message is being sent, grpc.aio puts INTERNAL in the place of the status that came.
        # This runs before; the status is there, so nothing of it has to be waited for.
        code, details = _retrieved(call.code()), _retrieved(call.details())
        if details == _SENDING_FAILED:
            self._fate = Unavailable("the stream ended while a structure was being sent")
        elif code is grpc.StatusCode.OK:
            self._fate = Unavailable(ENDED_EARLY)
        else:
            self._fate = from_parts(code, details, _retrieved(call.trailing_metadata()))


class Probe:
    """One call of GetModel, in a task of its own."""

    def __init__(self, tokenizer: "Stub", metadata: Metadata, timeout: float, deliver: Deliver, tasks: "Tasks") -> None:
        self._tokenizer, self._metadata, self._timeout, self._deliver = tokenizer, metadata, timeout, deliver
        self._task = tasks.begin(self._ask())

    def cancel(self) -> None:
        """End the call, whatever its state."""
        self._task.cancel()

    async def _ask(self) -> None:
        try:
            request = tokenizer_pb2.GetModelRequest()
            self._deliver(await self._tokenizer.GetModel(request, timeout=self._timeout, metadata=self._metadata))
        except grpc.RpcError as error:
            self._deliver(from_rpc_error(error))
        except asyncio.CancelledError:
            _raise_if_cancelled()
            self._deliver(Cancelled(_CLOSED))


class Tasks:
    """The tasks of a job, which end with it."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a task."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def stop(self) -> None:
        """Cancel all tasks, and wait for their ends."""
        running = [*self._running]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class StreamJob:
    """One call of `tokenize_many`: it pulls the input and waits for answers at the same time.

    prepare: a structure's request; it may raise one of LOCAL_ERRORS. resolve: the addresses of the servers. stub: of a
    server. metadata: of a call that begins now.
    """

    def __init__(
        self,
        structures: Iterable[Any] | AsyncIterable[Any],
        tracker: InFlightTracker[Any],
        prepare: Prepare,
        resolve: Callable[[], Awaitable[Sequence[Address]]],
        stub: Callable[[Address], "Stub"],
        metadata: Callable[[], Metadata],
        sleep: AsyncSleep,
        timeout: float,
    ) -> None:
        self._items = _enumerate(structures)
        self._tracker, self._prepare, self._resolve = tracker, prepare, resolve
        self._sleep = sleep
        self._tasks = Tasks()
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._calls = JobCalls(
            tracker,
            lambda server, deliver: Stream(stub(server.address), metadata(), deliver, self._tasks),
            lambda server, deliver: Probe(stub(server.address), metadata(), timeout, deliver, self._tasks),
            self._inbox.put_nowait,
        )
        self._pulling: asyncio.Task[bool] | None = None
        self._receiving: asyncio.Task[Event] | None = None
        self._exhausted = False

    async def results(self) -> AsyncGenerator[tuple[Any, Result]]:
        """Keys and results. Raises FoldmintError if the job cannot go on."""
        tracker = self._tracker
        try:
            while not (self._exhausted and tracker.empty):
                if self._pulling is None and tracker.has_room and not self._exhausted:
                    self._pulling = self._tasks.begin(self._pull())
                if tracker.unanswered:
                    await self._act()
                await self._wait()
                for result in tracker.ready():
                    yield result
                    tracker.attend()
            await asyncio.gather(*(stream.finish() for stream in self._calls.streams))
        finally:
            self._calls.cancel()
            await self._tasks.stop()

    async def _pull(self) -> bool:
        """Pull one structure into the tracker. Returns whether there was one."""
        try:
            key, structure = keyed(*await anext(self._items))
        except StopAsyncIteration:
            return False
        try:
            request = await self._prepare(structure)
        except LOCAL_ERRORS as error:
            self._tracker.add_failed(key, error)
        else:
            self._tracker.add(key, request)
        return True

    async def _act(self) -> None:
        """Send what is to be sent, to servers that are looked up if need be."""
        if self._tracker.pool.refresh_due:
            self._tracker.pool.update(await self._resolve())
        self._calls.act()

    async def _wait(self) -> None:
        """Wait until a structure is pulled, for an event, or until something is due."""
        left = None
        if self._tracker.unanswered:
            wait = self._tracker.wait()
            if not wait.at_work:
                if wait.seconds:
                    await self._sleep(wait.seconds)
                return
            left = wait.seconds
        elif self._pulling is None:
            return
        if self._receiving is None:
            self._receiving = self._tasks.begin(self._inbox.get())
        waiting = [task for task in (self._pulling, self._receiving) if task is not None]
        done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if self._pulling in done:
            pulling, self._pulling = self._pulling, None
            self._exhausted = not pulling.result()
        if self._receiving in done:
            receiving, self._receiving = self._receiving, None
            self._calls.handle(receiving.result())
        elif not done:
            self._calls.end_silent()


async def _enumerate(structures: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[tuple[int, Any]]:
    position = 0
    if isinstance(structures, AsyncIterable):
        async for item in structures:
            yield position, item
            position += 1
    else:
        for item in structures:
            yield position, item
            position += 1


def _raise_if_cancelled() -> None:
    """Raise again what a task caught, if the task is to end; otherwise it was a call of its that ended."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _retrieved(result: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        result.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    result.close()
    raise AssertionError("a call that is done has no status")
