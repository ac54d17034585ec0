"""The cost of a swap: how much longer requests of a steady stream take while the codebook is swapped.

    python -m benchmarks.faults.swap --json FILE

Runs a real server with the default model. A stream of short structures, one after another without pause, is divided
into windows; in the middle of every second window, the codebook is swapped. The longest request of a window with a swap
is compared with that of the previous window, without one. Half of the swaps load the version from the store, half have
it in memory. Also measures the cost of adding a batch's vectors to a reservoir.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import torch
import typer

from foldmint.v1 import codebook_pb2 as cb
from foldmint.v1 import codebook_pb2_grpc, tokenizer_pb2_grpc
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.codebooks.reservoir import Reservoir
from foldmint_tokenizer import read_backbones
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.store.model_store import Store, create_store, load_model

STRUCTURE = Path(__file__).resolve().parent.parent.parent / "examples" / "1a8o.cif.gz"
# More than the server keeps, so that the next in turn is always loaded from the store.
VERSIONS, KEPT = 8, 3


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    swaps: Annotated[int, typer.Option(help="Of each kind.")] = 30,
    seconds: Annotated[float, typer.Option(help="Length of a window.")] = 0.4,
    residues: Annotated[int, typer.Option(help="Of a structure.")] = 16,
    threads: Annotated[int, typer.Option(help="The server's number of compute threads; 0: torch's default.")] = 0,
) -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder, running(store(Path(folder)), threads) as (address, admin):
        figures: dict[str, object] = {
            kind: measured(address, admin, swaps, seconds, residues, kept=kind == "kept") for kind in ("loaded", "kept")
        }
    figures |= {
        "residues": residues,
        "reservoir_ms_per_step": recorded(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }
    print("| the version is | swaps | longest without, ms | with, ms | ratio | added, median | added, longest |")
    print("|---|---|---|---|---|---|---|")
    for kind in ("loaded", "kept"):
        row = figures[kind]
        assert isinstance(row, dict)
        print(
            f"| {kind} | {swaps} | {row['without_ms']:.2f} | {row['with_ms']:.2f} | {row['ratio']:.2f} | "
            f"{row['added_median_ms']:.2f} | {row['added_longest_ms']:.2f} |"
        )
    print(
        f"{figures['cores']} core(s), load {figures['load']:.1f}; "
        f"reservoir, ms a step of 1024 residues: {figures['reservoir_ms_per_step']}"
    )
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")


def store(folder: Path) -> Path:
    """The default model with several versions of its codebook: its codes in other orders."""
    model = load_model()
    own = model.codebook
    create_store(
        folder / "store",
        name=model.name,
        encoder=model.encoder,
        codebook=own.codebook,
        decoder=model.decoder,
        windows=own.windows,
        lever=model.lever,
        about={},
    )
    versions = Store(folder / "store")
    for number in range(2, VERSIONS + 1):
        order = torch.randperm(model.config.codes, generator=torch.Generator().manual_seed(number))
        windows = None if own.windows is None else own.windows[order]
        versions.publish(Codebook(*(part[order] for part in own.codebook)), parent="000001", windows=windows, about={})
    return folder / "store"


@contextmanager
def running(model: Path, threads: int) -> Iterator[tuple[str, str]]:
    """A server; yields its addresses, for requests and for operators."""
    command = [sys.executable, "-m", "foldmint_server.cli", "--model", str(model), "--listen", "127.0.0.1:0"]
    command += ["--metrics-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-level", "warning"]
    command += ["--insecure-admin"]  # whose operator is this program
    command += ["--keep-versions", str(KEPT), "--poll-seconds", "0", "--threads", str(threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        if server.stdout is None:
            raise SystemExit("the server has no output")
        lines = [server.stdout.readline().strip() for _ in range(3)]
        if not lines[2]:
            raise SystemExit("the server did not start; its log is above")
        try:
            yield lines[0].split()[-1], lines[2].split()[-1]
        finally:
            server.terminate()


def measured(address: str, admin: str, swaps: int, seconds: float, residues: int, *, kept: bool) -> dict[str, float]:
    """Times in ms: the median longest request of windows without and with a swap, their ratio, and what is added.

    added_median_ms: of the differences of neighboring windows. added_longest_ms: the longest request of all windows
    with a swap, less the longest of those without; below zero where chance is more than the swap.
    """
    turns = (1, 2) if kept else range(1, VERSIONS + 1)
    without, with_swap, swapped = [], [], []
    with grpc.insecure_channel(admin) as channel, steady(address, residues) as longest:
        operator = codebook_pb2_grpc.CodebookServiceStub(channel)

        def swap(number: int) -> float:
            began = time.perf_counter()
            version = f"{turns[number % len(turns)]:06d}"
            operator.ActivateCodebook(cb.ActivateCodebookRequest(version=version))
            return 1000 * (time.perf_counter() - began)

        for number in range(len(turns)):  # warm
            swap(number)
        for number in range(swaps):
            without.append(longest(seconds, lambda: None))
            with_swap.append(longest(seconds, lambda number=number: swapped.append(swap(number))))
    before, after = np.array(without), np.array(with_swap)
    return {
        "without_ms": float(np.median(before)),
        "with_ms": float(np.median(after)),
        "ratio": float(np.median(after) / np.median(before)),
        "added_median_ms": float(np.median(after - before)),
        "added_longest_ms": float(after.max() - before.max()),
        "without_longest_ms": float(before.max()),
        "with_longest_ms": float(after.max()),
        "activate_call_ms": float(np.median(swapped)),
    }


@contextmanager
def steady(address: str, residues: int) -> Iterator["Longest"]:
    """A stream of structures, one after another; yields what runs a window of it."""
    backbone = read_backbones(STRUCTURE)[0]
    coordinates = backbone.coordinates[:residues].astype("<f4").tobytes()
    one = pb.TokenizeRequest(
        backbones=pb.Backbones(chains=[pb.Backbone(coordinates=coordinates)]), codebook_version="ACTIVE"
    )
    with grpc.insecure_channel(address) as channel:
        longest = Longest(tokenizer_pb2_grpc.TokenizerServiceStub(channel), one)
        longest(1.0, lambda: None)  # warm
        try:
            yield longest
        finally:
            longest.close()


class Longest:
    """Runs windows of one open stream, and returns the longest request of each, ms."""

    def __init__(self, stub: tokenizer_pb2_grpc.TokenizerServiceStub, one: pb.TokenizeRequest) -> None:
        self._go, self._ended, self._one = threading.Semaphore(0), False, one
        self._answers = stub.TokenizeStream(self._items())

    def __call__(self, seconds: float, midway: object) -> float:
        """A window; midway: called in another thread after half of it. The window lasts until that has returned."""
        began, worst = time.perf_counter(), 0.0
        other = threading.Thread(target=_after, args=(seconds / 2, midway))
        other.start()
        while (now := time.perf_counter()) < began + seconds or other.is_alive():
            self._go.release()
            next(self._answers)
            worst = max(worst, 1000 * (time.perf_counter() - now))
        other.join()
        return worst

    def close(self) -> None:
        """End the stream."""
        self._ended = True
        self._go.release()

    def _items(self) -> Iterator[pb.TokenizeStreamRequest]:
        while True:
            self._go.acquire()
            if self._ended:
                return
            yield pb.TokenizeStreamRequest(request=self._one)


def _after(seconds: float, call: object) -> None:
    time.sleep(seconds)
    if callable(call):
        call()


def recorded(rows: int = 1024, steps: int = 200) -> dict[str, float]:
    """What a reservoir adds to a step of the device: median ms while it fills, and when it has seen ten times more."""
    z = torch.randn(rows, load_model().config.out)
    reservoir, times = Reservoir(rows * steps // 10, z.shape[1], np.random.default_rng(0)), []
    for _ in range(steps):
        began = time.perf_counter()
        reservoir.record(z)
        times.append(1000 * (time.perf_counter() - began))
    return {
        "filling": round(float(np.median(times[: steps // 10])), 3),
        "full": round(float(np.median(times[-steps // 10 :])), 3),
    }


if __name__ == "__main__":
    typer.run(main)
