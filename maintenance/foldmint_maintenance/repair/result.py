"""What a repair did."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldmint_maintenance.repair.gates import Gate
from foldmint_tokenizer.codebook import Codebook


@dataclass(frozen=True, eq=False)
class RepairResult:
    """What a repair did, or would do.

    dead: how many codes were; replaced: which were moved. version: published or, if none was, served before; parent:
    what it was made from. churn: share of the gates' tokens that changed; None where nothing was changed.
    statistics: of how the codes were used before, and are by the gates' vectors before and after. codebook: what was
    made, even if a gate refused it. hits: (codes,) of the gates' vectors, before and after.
    """

    dead: int
    replaced: tuple[int, ...]
    published: bool
    version: str
    parent: str | None
    gates: dict[str, Gate] = field(default_factory=dict)
    churn: float | None = None
    activated: bool = False
    exposure: float = 0.0
    statistics: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    codebook: Codebook | None = None
    hits: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    @property
    def passed(self) -> bool:
        """Whether all gates did."""
        return all(gate.passed for gate in self.gates.values())

    def as_json(self) -> dict[str, Any]:
        """For json.dumps: all but codebook and hits."""
        return {
            "dead": self.dead,
            "replaced": list(self.replaced),
            "published": self.published,
            "activated": self.activated,
            "version": self.version,
            "parent": self.parent,
            "gates": {name: gate.as_json() for name, gate in self.gates.items()},
            "churn": self.churn,
            "exposure": self.exposure,
            "statistics": self.statistics,
            "about": self.about,
            "notes": list(self.notes),
        }
