"""The devices for the page: what each does, how busy it was in the last minute, its queue and its memory."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import Gauge, Histogram

from foldmint_server.metrics.gpu import GpuMemory
from foldmint_server.metrics.registry import Metrics

_SECONDS = 60.0


class Devices:
    """Samples of how long devices computed, taken by the event loop and read by other threads.

    encoders: the name of each worker's device; several workers may share one. decoder: the name of the decoder's
    device; None without a decoder. memory: of GPUs, by name.
    """

    def __init__(
        self,
        metrics: Metrics,
        encoders: Sequence[str],
        decoder: str | None = None,
        memory: Callable[[], Mapping[str, GpuMemory]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics, self._memory, self._clock = metrics, memory, clock
        self._workers, self._decoder = Counter(encoders), decoder
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, dict[str, float]]] = deque([self._now()])

    def sample(self) -> None:
        """Take one sample, and drop those that are older than a minute."""
        now = self._now()
        with self._lock:
            self._samples.append(now)
            while now[0] - self._samples[1][0] >= _SECONDS:
                self._samples.popleft()

    def as_json(self) -> list[dict[str, Any]]:
        """A row for each device that encodes, and one for the decoder. busy: None before there are two samples.

        A batch counts when it ends, so a share is at most 1 although a long batch may have begun before the minute.
        """
        with self._lock:
            (began, before), (ended, after) = self._samples[0], self._samples[-1]
        memory = self._memory()
        metrics, seconds = self._metrics, ended - began

        def row(key: str, name: str, work: str, workers: int, queued: Gauge, limit: Gauge) -> dict[str, Any]:
            busy = None if seconds <= 0 else min(1.0, (after[key] - before[key]) / seconds / workers)
            held = memory.get(name)
            return {
                "name": name,
                "work": work,
                "workers": workers,
                "busy": busy,
                "queued_residues": int(_value(queued)),
                "queue_limit": int(_value(limit)),
                "memory": None if held is None else {"used": held.used, "total": held.total},
            }

        rows = [
            row(f"encode {name}", name, "encode", workers, metrics.queued_residues, metrics.queued_residues_limit)
            for name, workers in self._workers.items()
        ]
        if self._decoder is not None:
            queue = metrics.queued_detokenize_residues, metrics.queued_detokenize_residues_limit
            rows.append(row("decode", self._decoder, "decode", 1, *queue))
        return rows

    def _now(self) -> tuple[float, dict[str, float]]:
        """The time, and for how many seconds each computed so far."""
        metrics = self._metrics
        busy = {f"encode {name}": _sum(metrics.batch_seconds, device=name) for name in self._workers}
        return self._clock(), {**busy, "decode": _sum(metrics.stage_seconds, stage="decode")}


def _sum(histogram: Histogram, **labels: str) -> float:
    """The sum of what a child observed."""
    (family,) = histogram.labels(**labels).collect()
    return next((one.value for one in family.samples if one.name.endswith("_sum")), 0.0)


def _value(gauge: Gauge) -> float:
    (family,) = gauge.collect()
    return family.samples[0].value
