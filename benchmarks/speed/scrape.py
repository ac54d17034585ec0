"""The time of a scrape of all codes, idle and under load, and the effect of a scraper on requests.

    python -m benchmarks scrape --json FILE

In process: the time to write a scrape, by the server and by prometheus-client alone, alternating. Over a real server
with the default model: scrapes as Prometheus requests them, idle and while another process keeps the server busy. Then
one client streams requests without pause, repeatedly in three windows: alone, with a scraper, and alone. The window
with a scraper is compared with the mean of its two neighbors, and these with each other, which shows the random
variation. Since that is large on a machine with other work, the server's CPU time is compared, too.
"""

import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import numpy as np
import typer
from prometheus_client import CollectorRegistry, make_wsgi_app

from benchmarks._common import interleaved, ratio, write
from benchmarks._load import HEADERS, load, loaded, pieces, scraped, server
from foldmint_client import Backbone, Client
from foldmint_server.metrics.code_usage import CodeUsage
from foldmint_server.metrics.exposition import metrics_app
from foldmint_server.metrics.registry import create_metrics

CODES = 4096
_MOST_MS, _MOST_DEARER = 50.0, 2.0
_WRITTEN, _UNDER_WAY = 20, 16
_THIS = [sys.executable, "-m", "benchmarks", "scrape"]


class Window(NamedTuple):
    """residues_per_second; p50_ms, p99_ms: from a request's sending to its answer; cpu_ms: of the server, for 1000
    residues; scrapes: how many there were.
    """

    residues_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    scrapes: int = 0


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    rounds: Annotated[int, typer.Option(help="Of three windows each.")] = 8,
    seconds: Annotated[float, typer.Option(help="Length of a window.")] = 6.0,
    every: Annotated[float, typer.Option(help="Seconds between scrapes; 15 in deploy/prometheus.")] = 3.0,
    residues: Annotated[int, typer.Option(help="Of a request.")] = 50,
    threads: Annotated[int, typer.Option(help="The server's number of compute threads; 0: torch's default.")] = 0,
    load_on: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print tables."""
    if load_on:
        load(load_on, residues)
    by = written(_WRITTEN)
    print("\n".join(f"written by {name}: {median(found):.1f} ms" for name, found in by.items()), flush=True)
    with server(threads) as (address, metrics):
        scrapes = {"idle": scraped(metrics)}
        with loaded([*_THIS, "--load-on", address, "--residues", str(residues)]):
            scrapes["under load"] = scraped(metrics)
        print("\n".join(f"a scrape, {name}: {median(found):.1f} ms" for name, found in scrapes.items()), flush=True)
        found: list[list[Window]] = []
        for _ in range(rounds):
            found.append(windows(address, metrics, seconds, every, residues))
            print("; ".join(f"{one.residues_per_second:,.0f} residues/s" for one in found[-1]), flush=True)
    figures = {
        "written_ms": by,
        "scrapes_ms": scrapes,
        "windows": [[one._asdict() for one in three] for three in found],
        "seconds_between_scrapes": every,
        "residues_of_a_request": residues,
    }
    judged = bars(scrapes, found)
    print("\n".join(f"{bar['measure']}: {bar['found']:.2f}, {bar['bar']}" for bar in judged))
    write(file, {"tables": tables(by, scrapes, found, every), "bars": judged, **figures})


def written(repeats: int) -> dict[str, list[float]]:
    """Milliseconds to write and pack what Prometheus asks for, with all codes hit, in this process."""
    registry, usage = CollectorRegistry(), CodeUsage(CODES, 3600.0, time.monotonic)
    registry.register(usage)
    create_metrics(registry)
    usage.activate("1", 0.0)
    codes = np.random.default_rng(0).integers(0, CODES, 100 * CODES)
    usage.record("1", codes, np.ones(len(codes), np.float32))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics"}
    environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS.items()}
    apps = {"the server": metrics_app(registry), "prometheus-client alone": make_wsgi_app(registry)}
    tasks = {name: lambda app=app: b"".join(app(environ, lambda *_: None)) for name, app in apps.items()}
    return {name: [1e3 * one for one in taken] for name, taken in interleaved(tasks, repeats).items()}


def windows(address: str, metrics: str, seconds: float, every: float, residues: int) -> list[Window]:
    """Three windows in turn: alone, beside a scraper, alone."""
    before = window(address, metrics, seconds, residues)
    with scraping(metrics, every) as times:
        beside = window(address, metrics, seconds, residues)
    after = window(address, metrics, seconds, residues)
    return [before, beside._replace(scrapes=len(times)), after]


def window(address: str, metrics: str, seconds: float, residues: int) -> Window:
    """Stream requests for so long. Raises the error of a request that fails."""
    sent: dict[int, float] = {}
    taken: list[float] = []
    with Client(address, timeout=600) as client:
        client.tokenize(next(pieces(residues)))  # connects
        until = time.perf_counter() + seconds

        def asked() -> Iterator[tuple[int, Backbone]]:
            for number, piece in enumerate(pieces(residues)):
                if (now := time.perf_counter()) > until:
                    return
                sent[number] = now
                yield number, piece

        began, used = time.perf_counter(), cpu_seconds(metrics)
        for number, result in client.tokenize_many(asked(), in_flight=_UNDER_WAY, ordered=False):
            if isinstance(result, Exception):
                raise result
            taken.append(time.perf_counter() - sent[number])
        lasted, used = time.perf_counter() - began, cpu_seconds(metrics) - used
    p50, p99 = np.percentile(taken, [50, 99]) * 1e3
    total = len(taken) * residues
    return Window(total / lasted, float(p50), float(p99), 1e6 * used / total)


def cpu_seconds(metrics: str) -> float:
    """What the server's process has used of the CPU."""
    with urllib.request.urlopen(f"http://{metrics}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith("process_cpu_seconds_total")).split()[1])


@contextmanager
def scraping(address: str, every: float) -> Iterator[list[float]]:
    """A scraper is at work meanwhile; yields what will be the milliseconds of its scrapes."""
    over, times = threading.Event(), list[float]()

    def scrape() -> None:
        while not over.is_set():
            times.extend(scraped(address, 1))
            over.wait(every)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join()


def slower(found: Sequence[Sequence[Window]]) -> float:
    """Residues/s beside a scraper, % below those alone, median of the rounds; below 0 if above."""
    rates = [[one.residues_per_second for one in three] for three in found]
    return 100 * (1 - ratio([beside for _, beside, _ in rates], [(a + b) / 2 for a, _, b in rates]))


def dearer(found: Sequence[Sequence[Window]]) -> float:
    """Time on the CPU for as many residues beside a scraper, % above that alone, median of the rounds."""
    used = [[one.cpu_ms for one in three] for three in found]
    return 100 * (ratio([beside for _, beside, _ in used], [(a + b) / 2 for a, _, b in used]) - 1)


def tables(
    by: dict[str, list[float]], scrapes: dict[str, list[float]], found: Sequence[Sequence[Window]], every: float
) -> list[dict[str, object]]:
    """As docs/performance.md shows them."""
    columns = ["median, ms", "longest, ms"]
    rows = [
        [median(column) for column in zip(*(three[place][:4] for three in found), strict=True)] for place in range(3)
    ]
    names = ["alone", f"beside a scrape each {every:g} s", "alone again"]
    return [
        {
            "title": f"A scrape of {CODES} codes, written and packed in process",
            "columns": ["by", *columns],
            "rows": [[name, median(taken), max(taken)] for name, taken in by.items()],
        },
        {
            "title": "A scrape over HTTP, as Prometheus asks for it",
            "columns": ["the server is", *columns],
            "rows": [[name, median(taken), max(taken)] for name, taken in scrapes.items()],
        },
        {
            "title": f"Requests, {_UNDER_WAY} under way at a time, medians of {len(found)} windows",
            "columns": ["the client is", "residues/s", "p50, ms", "p99, ms", "server's CPU, ms a 1000 residues"],
            "rows": [[name, *row] for name, row in zip(names, rows, strict=True)],
        },
    ]


def bars(scrapes: dict[str, list[float]], found: Sequence[Sequence[Window]]) -> list[dict[str, object]]:
    """What was to be reached, and whether it was."""
    rates = [[one.residues_per_second for one in three] for three in found]
    judged = [
        ("ms of a scrape under load, median", _MOST_MS, median(scrapes["under load"])),
        ("% more of the server's CPU beside a scraper, for as many residues", _MOST_DEARER, dearer(found)),
        (
            "% fewer residues/s beside a scraper; the bar is what windows alone differ by",
            median(100 * abs(1 - after / before) for before, _, after in rates),
            slower(found),
        ),
    ]
    return [
        {"measure": measure, "bar": f"under {limit:.3g}", "found": float(value), "reached": bool(value < limit)}
        for measure, limit, value in judged
    ]


if __name__ == "__main__":
    typer.run(main)
