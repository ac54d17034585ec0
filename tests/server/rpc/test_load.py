"""Many clients at once: every answer right, and memory bounded."""

import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_tokenizer import StructureTokenizer, backbone
from helpers.chains import RealChain
from helpers.servers.faults import faulty_server, held_up
from helpers.support import RunningServer, metrics_of, running_server, stub_of
from helpers.waiting import wait_until

CLIENTS = 64
GIBIBYTE = 2**30
COMPUTED = "foldmint_batch_residues_sum"


def peak_memory(server: RunningServer) -> int:
    """The most resident memory, in bytes, that the server's process has had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def page_of(server: RunningServer) -> str:
    """The server's metrics."""
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as page:
        text: str = page.read().decode()
    return text


def raw(coordinates: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> pb.TokenizeRequest:
    return pb.TokenizeRequest(backbones=pb.Backbones(chains=[pb.Backbone(coordinates=coordinates.tobytes())]))


def of_lengths(
    chains: list[RealChain], lengths: Iterator[int]
) -> list["np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]:
    """Stretches of real chains; where no chain is long enough, several beside one another."""
    pool = np.concatenate([chain.coordinates - chain.coordinates.mean((0, 1)) for chain in chains])
    starts = np.random.default_rng(0).integers(0, len(pool) - 1500, 10_000)
    return [pool[start : start + length] for start, length in zip(starts, lengths, strict=False)]


@pytest.mark.slow
def test_sixty_four_clients_of_mixed_lengths(chains: list[RealChain]) -> None:
    lengths = np.random.default_rng(1).integers(30, 1501, CLIENTS * 2)
    lengths[:2] = (30, 1500)
    structures = of_lengths(chains, iter(lengths.tolist()))
    tokenizer = StructureTokenizer.load()
    expected = [tokenizer.tokenize(backbone(x))[0].tokens for x in structures]
    wrong: list[str] = []

    with running_server() as server:

        def client(number: int) -> None:
            with stub_of(server) as stub:
                for place in (number, number + CLIENTS):
                    (chain,) = stub.Tokenize(raw(structures[place]), timeout=240).chains
                    different = int((np.array(chain.tokens) != expected[place]).sum())
                    if different:
                        wrong.append(f"structure {place}: {different} of {len(chain.tokens)} tokens")

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        memory = peak_memory(server)
    assert not wrong
    print(f"peak memory of the server: {memory / GIBIBYTE:.2f} GiB")  # noqa: T201
    assert memory < 2 * GIBIBYTE


def test_a_full_queue_is_told_and_passes(chains: list[RealChain], tmp_path: Path) -> None:
    (large,) = of_lengths(chains, iter([1500]))
    faults, limits = tmp_path / "faults", ("--max-queued-residues", "3000", "--max-residues", "1500")
    with faulty_server(faults, *limits) as server, stub_of(server) as stub:
        with held_up(faults):
            calls = [stub.Tokenize.future(raw(large), timeout=100) for _ in range(24)]
            wait_until(lambda: metrics_of(server)['foldmint_rejects_total{reason="queue_full"}'] == 22)
        assert Counter(call.code().name for call in calls) == {"OK": 2, "RESOURCE_EXHAUSTED": 22}
        # A stream waits for room instead.
        items = (pb.TokenizeStreamRequest(id=i, request=raw(large)) for i in range(6))
        assert [bool(answer.response.chains) for answer in stub.TokenizeStream(items)] == [True] * 6


@pytest.mark.slow
@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_who_gives_up_stops_the_work(chains: list[RealChain], how: str) -> None:
    (x,) = of_lengths(chains, iter([1500]))
    huge = np.concatenate([x + 500 * i for i in range(40)])  # 60,000 residues
    with running_server("--max-message-bytes", "100000000") as server, stub_of(server) as stub:
        if how == "deadline":
            with pytest.raises(grpc.RpcError) as caught:
                stub.Tokenize(raw(huge), timeout=1.5)
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            call = stub.Tokenize.future(raw(huge), timeout=100)
            threading.Timer(1.5, call.cancel).start()
            with pytest.raises(grpc.FutureCancelledError):
                call.result()
        (chain,) = stub.Tokenize(raw(x[:50]), timeout=100).chains
        assert len(chain.tokens) == 50
        # The rest of the huge one is not computed.
        computed = sum(value for name, value in metrics_of(server).items() if name.startswith(COMPUTED))
        assert 50 <= computed < len(huge)
        assert 'foldmint_requests_total{method="Tokenize",status="CANCELLED"} 1.0' in page_of(server)


@pytest.mark.slow
def test_a_caller_that_vanishes_from_a_stream_leaves_nothing_behind(
    chains: list[RealChain], capfd: pytest.CaptureFixture[str]
) -> None:
    (x,) = of_lengths(chains, iter([800]))
    with running_server("--no-insecure-admin") as server, stub_of(server) as stub:
        call = stub.TokenizeStream(pb.TokenizeStreamRequest(id=i, request=raw(x)) for i in range(500))
        assert next(call).response.chains
        call.cancel()
        idle = {"foldmint_requests_in_flight 0.0", "foldmint_queued_residues 0.0"}
        until = time.monotonic() + 30
        while not idle <= set(page_of(server).splitlines()) and time.monotonic() < until:
            time.sleep(0.1)
        assert idle <= set(page_of(server).splitlines())
        assert len(stub.Tokenize(raw(x)).chains[0].tokens) == 800
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_too_many_calls_at_once_are_refused(chains: list[RealChain], tmp_path: Path) -> None:
    (x,) = of_lengths(chains, iter([1500]))
    faults = tmp_path / "faults"
    with faulty_server(faults, "--max-concurrent-calls", "2") as server, stub_of(server) as stub:
        with held_up(faults):
            calls = [stub.Tokenize.future(raw(x), timeout=100) for _ in range(12)]
            wait_until(lambda: sum(call.done() for call in calls) == 10)
        assert Counter(call.code().name for call in calls) == {"OK": 2, "RESOURCE_EXHAUSTED": 10}
