"""A repair that is killed at any moment: the store is whole, servers serve, and the next run succeeds."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_maintenance.store.listing import verified
from foldmint_tokenizer import StructureTokenizer, backbone
from foldmint_tokenizer.store.model_store import Store
from helpers.distributed.distributed_repair import killed, repaired
from helpers.forking import forking
from helpers.support import running_server, stub_of
from helpers.traffic import request_of


def _repair(store: Path, data: Path, gate_data: Path) -> None:
    import torch

    torch.set_num_threads(1)
    repaired(store, data, gate_data, ALONE)


@pytest.mark.parametrize("moments", [10, pytest.param(25, marks=pytest.mark.slow)])
def test_killed_at_any_moment(
    harmed: Path, parquet: Path, gate_data: Path, records: list[Record], moments: int
) -> None:
    # A process is at work at once, and is killed there rather than in its imports.
    context = forking()
    store = Store(harmed)
    first_codebook = store.codebook("000001").codebook
    chance = random.Random(moments)
    request = request_of(records[0])

    def job() -> "multiprocessing.process.BaseProcess":
        process = context.Process(target=_repair, args=(harmed, parquet, gate_data))
        process.start()
        return process

    def harm() -> None:
        version = store.publish(killed(first_codebook), parent=store.active(), about={}).version
        store.activate(version)

    # The first brings up the server that the others are forked from.
    for _ in range(2):
        began = time.monotonic()
        first = job()
        first.join()
        assert first.exitcode == 0
        harm()
    whole = time.monotonic() - began

    cut_short = 0
    seen: set[str] = set()
    with running_server("--model", str(harmed), "--poll-seconds", "0.1") as server, stub_of(server) as stub:
        for _ in range(moments):
            harm()
            began = time.monotonic()
            process = job()
            process.join(chance.uniform(0, 1.1 * whole))
            taken = time.monotonic() - began
            # The machine may have become faster or slower meanwhile.
            whole = max(whole, taken) if process.is_alive() else taken
            cut_short += process.is_alive()
            process.kill()
            process.join()

            assert verified(store).problems == ()
            answer = stub.Tokenize(request)
            seen.add(answer.codebook_version)
            expected = StructureTokenizer(store.load(answer.codebook_version)).tokenize(
                backbone(records[0].coordinates)
            )
            assert list(answer.chains[0].tokens) == expected[0].tokens.tolist()
            # All that is left is verified each time: let it not grow.
            for version in store.versions()[:-6]:
                store.remove(version)
    assert cut_short > moments / 4, "most were done before they were killed"
    assert len(seen) > min(3, moments / 5)
    harm()
    done = repaired(harmed, parquet, gate_data, ALONE)
    assert done.published
    assert store.active() == done.version
