"""How evenly codes are used: what the counts of a codebook say, and how fast they grow."""

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from foldmint.usage import enough_exposure, perplexity
from foldmint_client.admin import CodebookUsage


@dataclass(frozen=True)
class UsageFigures:
    """Counts in figures.

    residues: with a frame. used: codes that were hit, of all `codes`. utilization: their share. perplexity: e to the
    entropy of the shares, 1 to codes; None without residues. dead: codes that were not hit; None with fewer than
    `foldmint.usage.EXPOSURE` residues per code, too few to judge. top: the most frequent codes, with their hits.
    """

    residues: int
    codes: int
    used: int
    perplexity: float | None
    dead: int | None
    top: tuple[tuple[int, int], ...]

    @property
    def utilization(self) -> float:
        """Share of codes that were hit."""
        return self.used / self.codes


def figures(hits: npt.NDArray[np.uint64], top: int = 0) -> UsageFigures:
    """What counts say. hits: (codes,). top: how many of the most frequent codes to name; equal ones in their order."""
    total = sum(hits.tolist())  # as Python's integers, which have no end
    used = int(np.count_nonzero(hits))
    dead = len(hits) - used if enough_exposure(total, len(hits)) else None
    order = np.lexsort((np.arange(len(hits)), np.iinfo(np.uint64).max - hits))[:top]
    first = tuple((int(code), int(hits[code])) for code in order if hits[code])
    return UsageFigures(total, len(hits), used, perplexity(hits) if total else None, dead, first)


def as_row(version: str, since: datetime | None, found: UsageFigures) -> dict[str, Any]:
    """The row as JSON has it. since: when the server first activated the version."""
    return {
        "codebook_version": version,
        "since": None if since is None else since.isoformat(),
        "residues": found.residues,
        "codes": found.codes,
        "used": found.used,
        "utilization": found.utilization,
        "perplexity": found.perplexity,
        "dead": found.dead,
    }


class Throughput:
    """Residues a second, from counts that grow. A count that fell, or of another version, begins anew."""

    def __init__(self, kept: int = 60) -> None:
        self._last: tuple[str, int, float] | None = None
        self.rates: deque[float] = deque(maxlen=kept)

    def add(self, usage: CodebookUsage, residues: int, time: float) -> float | None:
        """Take a count in. time: in seconds. Returns residues a second since the one before; None if there is none."""
        last, self._last = self._last, (usage.version, residues, time)
        if last is None or last[0] != usage.version or residues < last[1] or time <= last[2]:
            return None
        self.rates.append((residues - last[1]) / (time - last[2]))
        return self.rates[-1]

    def lost(self) -> None:
        """There was no answer; what comes next has nothing before it."""
        self._last = None
