"""The decode thread: nothing lost, a full queue told, those that gave up let go, and closing finishes what began."""

import asyncio
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from foldmint_server.errors import DeviceFull, Overloaded, Stopping
from foldmint_server.inference.decode_worker import DecodeWorker, Wanted
from foldmint_server.metrics.registry import Metrics, create_metrics
from foldmint_tokenizer import Assignment, DecodedChain, DecodedStructure, InvalidTokens
from foldmint_tokenizer.detokenizer import DecoderInputs
from foldmint_tokenizer.motion.motions import Segments, whole_chain
from helpers.waiting import tasks_began, value_of

BUDGET = 1000


def tokens(length: int, name: int = 0) -> NDArray[np.int64]:
    return np.full(length, name, np.int64)


class Decoder:
    """Tells the tokens' first as pTM; can be held up, and can fail."""

    def __init__(self) -> None:
        self.decoded: list[int] = []
        self.inputs: list[DecoderInputs | None] = []
        self.told: list[tuple[Assignment, Sequence[Segments] | None]] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.failing = False
        self.error: Exception = RuntimeError("out of memory")

    def detokenize(
        self,
        tokens: NDArray[np.int64],
        *,
        has_frame: NDArray[np.bool_] | None = None,  # noqa: ARG002
        pae: bool = False,
        inputs: DecoderInputs | None = None,
        assignment: Assignment = Assignment.INDEPENDENT,
        segments: Sequence[Segments] | None = None,
    ) -> DecodedStructure:
        self.entered.set()
        assert self.go.wait(10)
        self.decoded.append(len(tokens))
        self.inputs.append(inputs)
        self.told.append((assignment, segments))
        if self.failing:
            raise self.error
        length = len(tokens)
        chain = DecodedChain(np.zeros((length, 3, 3), np.float32), np.zeros(length, np.float32))
        return DecodedStructure((chain,), float(tokens[0]), np.zeros((length, length), np.float32) if pae else None)


@pytest.fixture
def decoder() -> Decoder:
    return Decoder()


@pytest.fixture
def metrics() -> Metrics:
    return create_metrics(CollectorRegistry())


@pytest.fixture
def decoding(decoder: Decoder, metrics: Metrics) -> Iterator[DecodeWorker]:
    running = DecodeWorker(decoder, BUDGET, metrics)
    yield running
    decoder.go.set()
    running.close()


def decode(decoding: DecodeWorker, length: int, name: int = 0) -> "asyncio.Task[DecodedStructure]":
    return asyncio.create_task(decoding.decode(tokens(length, name), length))


async def started(decoder: Decoder) -> None:
    await asyncio.to_thread(decoder.entered.wait, 10)


async def test_each_gets_its_own(decoding: DecodeWorker, decoder: Decoder, metrics: Metrics) -> None:
    results = await asyncio.gather(*(decode(decoding, 10 + name, name) for name in range(20)))
    assert [(result.ptm, len(result.chains[0])) for result in results] == [(name, 10 + name) for name in range(20)]
    assert decoder.decoded == [10 + name for name in range(20)]
    assert value_of(metrics.detokenized_residues) == sum(decoder.decoded)
    assert value_of(metrics.queued_detokenize_residues) == 0
    assert (await decoding.decode(tokens(3), 3, Wanted(pae=True))).pae is not None


async def test_each_is_read_by_the_embedding_of_its_version(decoding: DecodeWorker, decoder: Decoder) -> None:
    first, second = DecoderInputs(torch.zeros(1), None), DecoderInputs(torch.ones(1), None)
    await asyncio.gather(*(decoding.decode(tokens(3), 3, Wanted(inputs=one)) for one in (first, second, first)))
    assert decoder.inputs == [first, second, first]


async def test_each_is_composed_as_it_was_assigned(decoding: DecodeWorker, decoder: Decoder) -> None:
    segments = [whole_chain()]
    await decoding.decode(tokens(3), 3, Wanted(assignment=Assignment.TRACKING, segments=segments))
    await decoding.decode(tokens(3), 3)
    assert decoder.told == [(Assignment.TRACKING, segments), (Assignment.INDEPENDENT, None)]


async def test_a_full_queue_refuses_and_then_takes_again(
    decoding: DecodeWorker, decoder: Decoder, metrics: Metrics
) -> None:
    decoder.go.clear()
    running, waiting = decode(decoding, 400), decode(decoding, 600)
    await started(decoder)
    assert value_of(metrics.queued_detokenize_residues) == 1000
    with pytest.raises(Overloaded, match="1000 residues are to be decoded, and there is no room for 1 more"):
        await decoding.decode(tokens(1), 1)
    assert value_of(metrics.rejects.labels("queue_full")) == 1
    decoder.go.set()
    await asyncio.gather(running, waiting)
    await decoding.decode(tokens(1), 1)
    assert decoder.decoded == [400, 600, 1]
    assert value_of(metrics.queued_detokenize_residues) == 0


async def test_who_gave_up_is_not_decoded(decoding: DecodeWorker, decoder: Decoder, metrics: Metrics) -> None:
    decoder.go.clear()
    running, dropped = decode(decoding, 400), decode(decoding, 600)
    await started(decoder)
    await tasks_began()
    dropped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropped
    # Its room is there for others at once.
    assert value_of(metrics.queued_detokenize_residues) == 400
    other = decode(decoding, 500)
    await tasks_began()
    decoder.go.set()
    await asyncio.gather(running, other)
    assert decoder.decoded == [400, 500]


async def test_who_gives_up_while_it_is_decoded(decoding: DecodeWorker, decoder: Decoder, metrics: Metrics) -> None:
    decoder.go.clear()
    running = decode(decoding, 400)
    await started(decoder)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert value_of(metrics.queued_detokenize_residues) == 400  # the thread is at it
    decoder.go.set()
    assert (await decode(decoding, 7, 3)).ptm == 3
    assert value_of(metrics.queued_detokenize_residues) == 0


async def test_a_failure_is_of_one(decoding: DecodeWorker, decoder: Decoder, metrics: Metrics) -> None:
    decoder.failing = True
    with pytest.raises(RuntimeError, match="out of memory"):
        await decode(decoding, 9)
    decoder.failing = False
    assert (await decode(decoding, 9, 4)).ptm == 4
    assert value_of(metrics.detokenized_residues) == 9
    assert value_of(metrics.queued_detokenize_residues) == 0
    assert not decoding.hung(0)


async def until_refused(decoding: DecodeWorker) -> None:
    """Return once it takes nothing more; until then each waits behind the one that is held up."""
    while True:
        probe = decode(decoding, 1)
        await tasks_began()
        if probe.done():
            assert isinstance(probe.exception(), Stopping)
            return
        probe.cancel()
        await asyncio.sleep(0.002)


async def test_closing_finishes_what_began_and_fails_the_rest(decoder: Decoder, metrics: Metrics) -> None:
    decoding = DecodeWorker(decoder, BUDGET, metrics)
    decoder.go.clear()
    running = decode(decoding, 400, 1)
    await started(decoder)
    waiting = decode(decoding, 500)
    await tasks_began()
    closing = asyncio.create_task(asyncio.to_thread(decoding.close))
    await until_refused(decoding)
    decoder.go.set()
    await closing
    assert (await running).ptm == 1
    with pytest.raises(Stopping):
        await waiting
    with pytest.raises(Stopping):
        await decoding.decode(tokens(1), 1)
    assert decoder.decoded == [400]
    assert value_of(metrics.rejects.labels("stopping")) == 2


async def test_a_decoding_that_never_ends_is_seen(decoder: Decoder, metrics: Metrics) -> None:
    now = 0.0
    decoding = DecodeWorker(decoder, 10_000, metrics, lambda: now)
    assert not decoding.hung(60)
    # Four times the residues of a thousand may take sixteen times as long.
    for residues, allowed in ((5, 60), (1000, 60), (4000, 960)):
        decoder.go.clear()
        decoder.entered.clear()
        task = decode(decoding, residues)
        await started(decoder)
        now += allowed
        assert not decoding.hung(60)
        now += 1
        assert decoding.hung(60)
        decoder.go.set()
        await task
        assert not decoding.hung(60)
    decoding.close()


async def test_warming_up_counts_as_nothing(decoding: DecodeWorker, decoder: Decoder, metrics: Metrics) -> None:
    await decoding.warm_up()
    assert len(decoder.decoded) == 1
    assert value_of(metrics.detokenized_residues) == 0


@pytest.mark.parametrize(
    ("error", "told", "suspected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), DeviceFull, 0),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), RuntimeError, 1),
        (InvalidTokens("tokens that cannot be"), InvalidTokens, 0),
    ],
    ids=["memory", "device", "tokens"],
)
async def test_the_device_is_suspected_of_what_may_be_its_fault(
    decoder: Decoder, metrics: Metrics, error: Exception, told: type[Exception], suspected: int
) -> None:
    suspicions: list[None] = []
    decoding = DecodeWorker(decoder, BUDGET, metrics, failed=lambda: suspicions.append(None))
    decoder.failing, decoder.error = True, error
    with pytest.raises(told):
        await decode(decoding, 10)
    assert len(suspicions) == suspected
    decoder.failing = False
    assert len((await decode(decoding, 10)).chains) == 1
    decoding.close()
