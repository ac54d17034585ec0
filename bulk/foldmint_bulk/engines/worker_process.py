"""A worker in a process of its own.

python -m foldmint_bulk.engines.worker_process

The first message has the job's location and the worker's settings, and is answered when the model is loaded. Every
other one is a unit, and is answered by its record; what was done so far comes before.
"""

import os
import signal
import threading
import time
from typing import Any

from foldmint_bulk.errors import BulkError
from foldmint_bulk.parsing.pool import ParserLimits
from foldmint_bulk.processes import connect_parent, packed, unpacked
from foldmint_bulk.worker import Progress, Worker, WorkerSettings
from foldmint_tokenizer.errors import TokenizerError

_REPORT_SECONDS = 0.5


def main() -> None:
    """Answer until the requests end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = connect_parent()
    first = unpacked(requests.recv_bytes())
    limits = ParserLimits(**first["limits"])
    settings = WorkerSettings(first["device"], first["parsers"], first["threads"], limits, first["number"])
    units = _Requests(requests)
    reports = _Reports(answers)
    try:
        with Worker(first["out"], settings, report=reports.add) as worker:
            answers.send_bytes(packed({"ready": os.getpid()}))
            while (unit := units.next()) is not None:
                record = worker(unit)
                reports.send()
                answers.send_bytes(packed({"record": record}))
    except (BulkError, TokenizerError) as error:
        answers.send_bytes(packed({"error": str(error)}))
    except BrokenPipeError:
        pass
    os._exit(0)


class _Requests:
    """Requests, received in a thread: the process ends at once when its parent has gone, whatever it is doing."""

    def __init__(self, requests: Any) -> None:  # noqa: ANN401 (a Connection, with other types on each platform)
        self._requests = requests
        self._ready = threading.Semaphore(0)
        self._waiting: list[dict[str, Any]] = []
        threading.Thread(target=self._receive, daemon=True).start()

    def next(self) -> dict[str, Any] | None:
        """The next unit's row."""
        self._ready.acquire()
        return self._waiting.pop(0) if self._waiting else None

    def _receive(self) -> None:
        try:
            while True:
                self._waiting.append(unpacked(self._requests.recv_bytes()))
                self._ready.release()
        except (EOFError, OSError):
            os._exit(0)


class _Reports:
    """What was done, sent now and then."""

    def __init__(self, answers: Any) -> None:  # noqa: ANN401
        self._answers = answers
        self._sum, self._sent = Progress(), time.monotonic()

    def add(self, progress: Progress) -> None:
        """Add what was done."""
        self._sum.structures += progress.structures
        self._sum.residues += progress.residues
        self._sum.failures += progress.failures
        if time.monotonic() - self._sent > _REPORT_SECONDS:
            self.send()

    def send(self) -> None:
        """Send what was added."""
        total = self._sum
        self._answers.send_bytes(packed({"progress": [total.structures, total.residues, total.failures]}))
        self._sum, self._sent = Progress(), time.monotonic()


if __name__ == "__main__":
    main()
