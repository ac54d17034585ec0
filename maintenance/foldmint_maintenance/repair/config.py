"""Settings of a repair."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from foldmint_client.connection import ConnectionOptions
from foldmint_maintenance.distributed.process_group import ALONE, ProcessGroup
from foldmint_maintenance.repair.decoder_finetune import RowConfig
from foldmint_maintenance.repair.gates import GateLimits
from foldmint_maintenance.vq.dead_code_reset import Measure, Strategy, check_choice

Scope = Literal["repair", "finetune"]


@dataclass(frozen=True)
class RepairConfig:
    """How to repair a codebook.

    scope: repair moves dead codes alone; finetune then lets all codes follow by moving averages. strategy: where dead
    codes go. dead_threshold, measure: a code is dead below it; count: its N, hits a step; frequency: its share of all
    hits. min_exposure: residues seen a code, below which no code is called dead; `foldmint.usage.evidence` asks for
    more where codes are rare or structures repeat. residues: of the batch that dead codes are put into, and settle on
    in `rounds` of k-means. finetune_steps, finetune_batch, decay: of scope finetune. gate_residues, gate_decoded:
    residues of the gates' chains, and the longest chain that is decoded for them. gate_share: of the data's chains,
    kept for the gates where there are no other data for them; up to a half where the gates need more. min_gate_chains,
    min_gate_residues: the least that gates are measured on. force: go on where exposure or the gates' data are too few.
    """

    scope: Scope = "repair"
    strategy: Strategy = "kmeans++"
    dead_threshold: float = 1e-5
    measure: Measure = "count"
    min_exposure: float = 10.0
    residues: int = 262_144
    rounds: int = 5
    finetune_steps: int = 200
    finetune_batch: int = 4096
    decay: float = 0.99
    gate_residues: int = 50_000
    gate_decoded: int = 512
    gate_share: float = 0.1
    min_gate_chains: int = 30
    min_gate_residues: int = 5_000
    force: bool = False
    rows: RowConfig = field(default_factory=RowConfig)
    limits: GateLimits = field(default_factory=GateLimits)
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, Scope)
        check_choice("strategy", self.strategy, Strategy)
        check_choice("measure", self.measure, Measure)
        if min(self.residues, self.finetune_batch, self.gate_residues, self.gate_decoded) < 1:
            raise ValueError("residues, finetune_batch, gate_residues and gate_decoded must be positive")
        if min(self.rounds, self.finetune_steps) < 0 or self.dead_threshold < 0 or self.min_exposure < 0:
            raise ValueError("rounds, finetune_steps, dead_threshold and min_exposure must be 0 or more")
        if min(self.min_gate_chains, self.min_gate_residues) < 0:
            raise ValueError("min_gate_chains and min_gate_residues must be 0 or more")
        if not (0 < self.gate_share < 1 and 0 < self.decay < 1):
            raise ValueError("gate_share and decay must be between 0 and 1")


@dataclass(frozen=True)
class RepairJob:
    """What to repair, and from what.

    store: a path, or a URL as fsspec takes them. data: a set, for vectors, decoder rows and gates; or servers: admin
    listeners, HOST:PORT, whose reservoirs give vectors. gate_data: a set for the gates alone. activate: admin listeners
    of servers to swap; without them, they find the new version in the store. connection: options of all these servers.
    dry_run: change nothing.
    """

    store: str
    config: RepairConfig = field(default_factory=RepairConfig)
    data: Path | None = None
    servers: tuple[str, ...] = ()
    gate_data: Path | None = None
    activate: tuple[str, ...] = ()
    dry_run: bool = False
    lock_seconds: float = 600.0
    device: str = "cpu"
    group: ProcessGroup = field(default=ALONE, compare=False)
    connection: ConnectionOptions = field(default_factory=ConnectionOptions, compare=False, repr=False)

    def __post_init__(self) -> None:
        if (self.data is None) == (not self.servers):
            raise ValueError("vectors come from data or from servers: give one of them")
        if self.servers and self.gate_data is not None:
            raise ValueError("gate_data goes with data")
        if self.lock_seconds <= 0:
            raise ValueError("lock_seconds must be positive")
