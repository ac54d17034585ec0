"""Metrics of a bulk job for Prometheus: on a port, or in a file for node_exporter's textfile collector."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    start_http_server,
    write_to_textfile,
)
from prometheus_client.core import Metric

from foldmint_bulk.errors import OutputError
from foldmint_bulk.output.records import Record
from foldmint_bulk.parsing.results import FAILED, INVALID, KILLED, UNREADABLE
from foldmint_bulk.worker import Progress

_WRITE_SECONDS = 15.0


class Metrics:
    """What a process of a bulk job has done. address: (host, port) to serve them at; file: to write them to.

    Raises OutputError if the port is taken or the file cannot be written.
    """

    def __init__(
        self,
        address: tuple[str, int] | None = None,
        file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # series that Prometheus does not need
        self._registry = CollectorRegistry()
        self._file, self._clock, self._written = file, clock, float("-inf")
        self._units = Gauge(
            "foldmint_bulk_units",
            "Units of the slice, by state (done, failed, left).",
            ["state"],
            registry=self._registry,
        )
        self._structures = Counter(
            "foldmint_bulk_structures", "Structures that were tokenized, repeated ones too.", registry=self._registry
        )
        self._residues = Counter(
            "foldmint_bulk_residues", "Residues that were tokenized, repeated ones too.", registry=self._registry
        )
        self._failures = Counter(
            "foldmint_bulk_failures",
            "Structures that failed, in units with a record, by kind (InvalidStructure, Unreadable, Killed, Failed).",
            ["kind"],
            registry=self._registry,
        )
        self._idle = Gauge(
            "foldmint_bulk_device_idle_ratio",
            "Share of the workers' time in which their device had no batch, in units with a record.",
            registry=self._registry,
        )
        self._eta = Gauge(
            "foldmint_bulk_eta_seconds",
            "Seconds until the slice is done, at the present rate.",
            registry=self._registry,
        )
        for state in ("done", "failed", "left"):
            self._units.labels(state)
        for kind in (INVALID, UNREADABLE, KILLED, FAILED):
            self._failures.labels(kind)
        self._server = self._thread = None
        if address is not None:
            try:
                self._server, self._thread = start_http_server(address[1], address[0], registry=self._registry)
            except OSError as error:
                raise OutputError(f"--metrics-listen {address[0]}:{address[1]}: {error.strerror or error}") from error
        self.write()

    def families(self) -> Iterable[Metric]:
        """What is shown of them."""
        return self._registry.collect()

    @property
    def port(self) -> int | None:
        """At which they are served."""
        return None if self._server is None else int(self._server.server_port)

    def units(self, done: int, failed: int, left: int) -> None:
        """Set the numbers of units."""
        for state, count in (("done", done), ("failed", failed), ("left", left)):
            self._units.labels(state).set(count)
        self._write_sometimes()

    def progressed(self, progress: Progress) -> None:
        """Count what a worker has done."""
        self._structures.inc(progress.structures)
        self._residues.inc(progress.residues)
        self._write_sometimes()

    def recorded(self, record: Record, idle: float | None, eta: float | None) -> None:
        """Count a record. idle: share of time, so far; eta: seconds; None: not known."""
        for kind, count in record.failures.items():
            self._failures.labels(kind).inc(count)
        if idle is not None:
            self._idle.set(idle)
        if eta is not None:
            self._eta.set(eta)

    def write(self) -> None:
        """Write the file, if there is to be one."""
        if self._file is not None:
            try:
                write_to_textfile(str(self._file), self._registry)
            except OSError as error:
                raise OutputError(f"--metrics-file {self._file}: {error.strerror or error}") from error
        self._written = self._clock()

    def close(self) -> None:
        """Write the file, and end the server."""
        self.write()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def _write_sometimes(self) -> None:
        if self._file is not None and self._clock() - self._written > _WRITE_SECONDS:
            self.write()
