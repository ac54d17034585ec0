"""The Ray engine: workers on the nodes of a Ray cluster, to which Ray Data hands the units.

Ray places the workers and replaces those that it loses with their nodes; each worker does its units in a process of its
own, as the local engine's do. What is done is in the records, so nothing that Ray forgets is lost.
"""

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from foldmint_bulk.engines.supervised_worker import SupervisedWorker
from foldmint_bulk.errors import BulkError, InvalidInput, WorkerFailed
from foldmint_bulk.job import Job
from foldmint_bulk.output.records import Record
from foldmint_bulk.unit import Unit
from foldmint_bulk.worker import Progress, WorkerSettings

_BLOCKS = 20_000
"""Pieces that Ray schedules, at most; of more units, several share a piece, and their records come together."""

_STARTS = 5
"""Tries to start a cluster: on a busy machine its parts can take longer than Ray allows them (ray issue 65983)."""

_CONNECT_SECONDS = 10.0

_LOOPBACK = re.compile(r"(local|(127\.0\.0\.1|localhost):\d+)$")

# What the environment says goes first.
_VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_LOCAL_VARIABLES = {
    # Who may call Ray's ports may run anything: let them listen on the loopback interface alone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # A worker that takes too much memory is the kernel's to kill, and is then counted as having died of its unit.
    "RAY_memory_monitor_refresh_ms": "0",
}


def run(
    job: Job,
    units: Sequence[Unit],
    workers: int,
    settings: WorkerSettings,
    report: Callable[[Progress], object] = lambda _: None,
    *,
    address: str | None = None,
) -> Generator[Record]:
    """The records of units, as they are done; see `engines.base.Engine`.

    address: of the cluster; None: the environment's RAY_ADDRESS, else a cluster on this machine for this run alone. A
    cluster that has fewer resources than the workers need runs as many as it can. Raises WorkerFailed as the local
    engine does, and if Ray fails; InvalidInput if settings name one of several GPUs.
    """
    if settings.device.startswith("cuda:"):
        raise InvalidInput(f"Ray chooses each worker's GPU; give --device cuda instead of {settings.device}")
    workers = min(workers, len(units))
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    # Before Ray is imported, which reads some of them.
    for name, value in (_VARIABLES | (_LOCAL_VARIABLES if _LOOPBACK.match(address) else {})).items():
        os.environ.setdefault(name, value)
    import ray.data
    from ray.exceptions import RayError

    try:
        with _cluster(address, workers * (settings.threads or 1)):
            gpus = _gpus(settings.device)
            own = replace(settings, device="cuda" if gpus else "cpu")
            _quiet()
            rows = [{"unit": json.dumps(unit.row())} for unit in units]
            records = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS)).map(
                _RayWorker,
                fn_constructor_kwargs={"job": job, "settings": own, "folder": str(Path.cwd())},
                # Units take seconds or more: another one that waits for the same worker gains nothing.
                compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
                # Lost workers are restarted, and their units done again, without a limit: Ray's default. Of a unit that
                # its worker dies of, the supervised worker takes care.
                num_gpus=1 if gpus else None,
                num_cpus=None if gpus else settings.threads or 1,
            )
            for batch in records.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
                for row in batch.to_pylist():
                    record = _record(row)
                    report(Progress(record.structures, record.residues, sum(record.failures.values())))
                    yield record
    except (RayError, ConnectionError) as error:
        raise WorkerFailed(f"Ray: {str(error).strip() or type(error).__name__}") from error


class _RayWorker:
    """A worker, in an actor of Ray's. folder: in which the job's relative paths are."""

    def __init__(self, job: Job, settings: WorkerSettings, folder: str) -> None:
        self._error = ""
        try:
            os.chdir(folder)
        except OSError as error:
            if "://" not in job.out:
                self._error = f"{socket.gethostname()}: {folder}: {error.strerror}; nodes have to share the job's paths"
        if settings.device == "cuda" and settings.threads is None:
            settings = replace(settings, threads=_cores_of_a_gpu())
        elif settings.threads is None:
            settings = replace(settings, threads=1)
        self._worker = SupervisedWorker(job, settings)

    def __call__(self, row: Mapping[str, str]) -> dict[str, str]:
        """The unit's record, or an error that any other unit would have too."""
        if self._error:
            return {"record": "", "error": self._error}
        try:
            record = self._worker(Unit.of(json.loads(row["unit"])))
        except BulkError as error:
            return {"record": "", "error": str(error)}
        return {"record": json.dumps(record.row()), "error": ""}


def _record(row: Mapping[str, str]) -> Record:
    if row["error"]:
        raise WorkerFailed(row["error"])
    return Record.of(json.loads(row["record"]))


@contextmanager
def _cluster(address: str, cpus: int) -> Iterator[None]:
    """Connect to a cluster, or start one with so many CPUs at least. One that is connected already stays so."""
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "critical"}
    if address == "local":
        options |= {"include_dashboard": False, "num_cpus": max(len(os.sched_getaffinity(0)), cpus)}
    try:
        with _own_signal_handlers():
            _init(address, options)
        yield
    finally:
        ray.shutdown()


def _init(address: str, options: Mapping[str, Any]) -> None:
    """Connect to a cluster, or start one. Raises WorkerFailed."""
    import ray

    _check_reachable(address)
    for attempt in range(_STARTS):
        try:
            ray.init(address, **options)
        except Exception as error:  # Ray has no class for those of its start
            ray.shutdown()
            if address != "local" or attempt == _STARTS - 1:
                what = "start" if address == "local" else f"be reached at {address}"
                raise WorkerFailed(f"Ray cannot {what}: {error}") from error
        else:
            return


def _check_reachable(address: str) -> None:
    """Raise WorkerFailed if nothing listens at HOST:PORT: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if "/" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise WorkerFailed(f"Ray cannot be reached at {address}: {error.strerror or error}") from error


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Undo that Ray takes over SIGTERM, and would end this process in the middle of what it does."""
    if threading.current_thread() is not threading.main_thread():  # which alone can have handlers
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _gpus(device: str) -> bool:
    """Whether workers take GPUs. Raises WorkerFailed if they have to, and the cluster has none."""
    import ray

    there = ray.cluster_resources().get("GPU", 0) > 0
    if device == "cuda" and not there:
        raise WorkerFailed("the Ray cluster has no GPU; --device cuda needs one")
    return there and device != "cpu"


def _cores_of_a_gpu() -> int:
    """Of this node, a GPU's share of the cores."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    gpus = next((node["Resources"].get("GPU", 1) for node in ray.nodes() if node["NodeID"] == own), 1)
    return max(1, int(len(os.sched_getaffinity(0)) // max(1, gpus)))


def _quiet() -> None:
    """Keep Ray Data from writing to the terminal."""
    import logging

    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
