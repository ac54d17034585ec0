"""The progress of a long run, on disk, so that an interrupted run can resume."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._common import machine


class Progress:
    """State beside a benchmark's JSON file, in `FILE.part`, from which a run with the same settings and commit resumes.

    state: what is kept: only what JSON holds. file: where the benchmark's figures go; None: nothing is kept.
    """

    def __init__(self, file: Path | None, settings: Mapping[str, object], state: dict[str, Any]) -> None:
        self.state = state
        self._part = None if file is None else file.with_name(file.name + ".part")
        self._settings = {**settings, "commit": machine()["commit"]}
        if self._part is not None and self._part.exists():
            kept = json.loads(self._part.read_text())
            if kept["settings"] == self._settings:
                self.state = kept["state"]
                tell(f"resuming from {self._part}")

    def save(self) -> None:
        """Save the current state."""
        if self._part is not None:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            new = self._part.with_name(self._part.name + ".new")
            new.write_text(json.dumps({"settings": self._settings, "state": self.state}))
            new.replace(self._part)

    def done(self) -> None:
        """Delete the saved state: the run is complete."""
        if self._part is not None:
            self._part.unlink(missing_ok=True)


def tell(line: str) -> None:
    """Print the progress."""
    print(line, file=sys.stderr, flush=True)
