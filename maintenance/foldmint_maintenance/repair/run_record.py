"""What became of a run of the repair job, whatever its outcome: for the report, the JSON file and the metrics."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from foldmint_maintenance.repair.gates import MEANINGS
from foldmint_maintenance.repair.job_metrics import outcome_of
from foldmint_maintenance.repair.result import RepairResult
from foldmint_maintenance.repair.rollout import ServerOutcome

Log = Callable[[str], None]
"""Called with a line of text."""

Advance = Callable[[int], None]
"""Called with how much more of a phase is done."""


def _no_progress(name: str, total: int | None) -> Advance:  # noqa: ARG001 (as a display takes them)
    return lambda _: None


class RunProgress:
    """Receives the progress of a repair; this one ignores it."""

    def report_result(self, result: RepairResult) -> None:
        """Called with what is known by now, which is the result if the repair ends here."""

    def report_server(self, server: ServerOutcome) -> None:
        """Called with what became of a server."""

    def phase(self, name: str, total: int | None) -> Advance:
        """Called when a phase begins. total: what it has to do; None if that is not known."""
        return _no_progress(name, total)


NO_PROGRESS = RunProgress()


@dataclass
class RunRecord(RunProgress):
    """A run of the repair job, from its beginning to its end.

    started, finished: UTC. outcome: one of `job_metrics.OUTCOMES`. error: why it ended, empty if it ended well.
    problems, warnings: of the preflight, each with what to do. servers: what each was asked and serves. result: as far
    as the run came; None if it did not come to one. show: what a phase is shown by.
    """

    store: str
    started: datetime
    dry_run: bool = False
    finished: datetime | None = None
    outcome: str = "error"
    error: str = ""
    problems: Sequence[str] = ()
    warnings: Sequence[str] = ()
    servers: list[ServerOutcome] = field(default_factory=list)
    result: RepairResult | None = None
    show: Callable[[str, int | None], Advance] = _no_progress

    def phase(self, name: str, total: int | None) -> Advance:
        """Show a phase."""
        return self.show(name, total)

    def report_result(self, result: RepairResult) -> None:
        """Keep the result so far."""
        self.result = result

    def report_server(self, server: ServerOutcome) -> None:
        """Keep what became of a server, in place of what was kept of it before."""
        self.servers = [*(one for one in self.servers if one.address != server.address), server]

    def measured(self) -> dict[str, Any] | None:
        """The result for the metrics, with the version that is active after the run; None if there is none."""
        if self.result is None:
            return None
        fields = self.result.as_json()
        return fields | {"version": fields["parent"]} if fields["published"] and not fields["activated"] else fields

    def as_json(self) -> dict[str, Any]:
        """For json.dumps: the result's figures, and what became of the run. Figures that it lacks are null or empty."""
        fields = _EMPTY if self.result is None else self.result.as_json()
        gates = {name: gate | {"meaning": MEANINGS.get(name, "")} for name, gate in fields["gates"].items()}
        return {
            "store": self.store,
            "started": self.started.isoformat(timespec="seconds"),
            "finished": None if self.finished is None else self.finished.isoformat(timespec="seconds"),
            "dry_run": self.dry_run,
            "outcome": self.outcome,
            "error": self.error,
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            "servers": [server._asdict() for server in self.servers],
            **fields,
            "gates": gates,
        }


_EMPTY: dict[str, Any] = {
    "dead": None,
    "replaced": [],
    "published": False,
    "activated": False,
    "version": None,
    "parent": None,
    "gates": {},
    "churn": None,
    "exposure": None,
    "statistics": {},
    "about": {},
    "notes": [],
}


@contextmanager
def concluded(
    record: RunRecord,
    write: Callable[[RunRecord], None],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[None]:
    """Complete a record, and write it, however what runs inside ends.

    write: may raise OSError, which does not hide what the run ended with.
    """
    code, failed = 0, None
    try:
        yield
    except BaseException as error:
        failed = error
        found = getattr(error, "exit_code", 1)
        code = found if isinstance(found, int) else 1
        cause = error if error.__cause__ is None else error.__cause__
        record.error = str(cause) if code not in (0, 3) or cause is not error else ""
        raise
    finally:
        record.finished, record.outcome = clock(), outcome_of(code)
        try:
            write(record)
        except OSError as unwritten:
            if failed is None:
                raise
            failed.add_note(f"the report could not be written: {unwritten}")
