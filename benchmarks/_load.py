"""Load on a real server: concurrent requests over one stream, a process that keeps it busy, and scrapes."""

import gzip
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice

import numpy as np

from benchmarks._common import ROOT
from foldmint_client import Backbone, Client
from foldmint_maintenance.datasets.records import read_parquet

CHAINS = ROOT / "tests" / "data" / "chains.parquet"
_TIMES, _SCRAPES = 100, 20
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}
"""What Prometheus sends."""


@contextmanager
def server(threads: int, *options: str) -> Iterator[tuple[str, str]]:
    """A server with the default model; yields its addresses, for requests and for scrapes."""
    command = [sys.executable, "-m", "foldmint_server.cli", "--log-level", "warning", "--threads", str(threads)]
    command += options
    for name in ("listen", "metrics-listen", "admin-listen"):
        command += [f"--{name}", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(3)]
            if not lines[2]:
                sys.exit("the server did not start; its log is above")
            yield lines[0].split()[-1], lines[1].split()[-1]
        finally:
            process.terminate()


def pieces(residues: int) -> Iterator[Backbone]:
    """Stretches of real chains, without end."""
    cut = [
        Backbone(one.coordinates[start : start + residues], one.residue_index[start : start + residues])
        for one in read_parquet(CHAINS)
        for start in range(0, len(one.residue_index) - residues + 1, residues)
    ]
    if not cut:
        sys.exit(f"no chain of {CHAINS} has {residues} residues")
    return cycle(cut)


def queued(address: str, count: int, residues: int) -> dict[str, float]:
    """Send all at once over one stream; residues/s, and ms from a request's sending to its answer.

    Few are sent again over another stream, until there are a hundred times. Raises the error of a request that fails.
    """
    taken: list[float] = []
    rounds, seconds = -(-_TIMES // count), 0.0
    with Client(address, timeout=600) as client:
        client.tokenize(next(pieces(residues)))  # connects
        for _ in range(rounds):
            sent: dict[int, float] = {}

            def asked(sent: dict[int, float] = sent) -> Iterator[tuple[int, Backbone]]:
                for number, piece in enumerate(islice(pieces(residues), count)):
                    sent[number] = time.perf_counter()
                    yield number, piece

            began = time.perf_counter()
            for number, result in client.tokenize_many(asked(), in_flight=count, ordered=False):
                taken.append(time.perf_counter() - sent[number])
                if isinstance(result, Exception):
                    raise result
            seconds += time.perf_counter() - began
    p50, p99 = np.percentile(taken, [50, 99]) * 1e3
    return {
        "requests": count,
        "residues_per_second": rounds * count * residues / seconds,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
    }


@contextmanager
def loaded(command: Sequence[str]) -> Iterator[None]:
    """Another process keeps the server busy: a command that comes to `load`."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                sys.exit("the process that is to load the server ended")
            yield
            if process.poll() is not None:
                sys.exit("the process that is to load the server ended while it was needed")
        finally:
            process.terminate()


def load(address: str, residues: int) -> None:
    """Send requests until this process is ended; a word once the first hundred are answered."""
    with Client(address) as client:
        for number, (_, result) in enumerate(client.tokenize_many(pieces(residues), ordered=False)):
            if isinstance(result, Exception):
                raise result
            if number == 100:
                print("busy", flush=True)


def scraped(address: str, count: int = _SCRAPES) -> list[float]:
    """Milliseconds of each of some scrapes, one after another, asked for as Prometheus does."""
    url = address if address.startswith("http") else f"http://{address}/metrics"
    request = urllib.request.Request(url, headers=HEADERS)  # noqa: S310 (an address of our own)
    times = []
    for _ in range(count):
        began = time.perf_counter()
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            found, packed = answer.read(), answer.headers.get("Content-Encoding") == "gzip"
        times.append(1e3 * (time.perf_counter() - began))
        if b"foldmint_code_hits_total" not in (gzip.decompress(found) if packed else found):
            sys.exit(f"{url} has no hits of codes")
    return times
