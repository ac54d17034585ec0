"""What a repair works on: vectors to move codes among, and chains, apart from them, that its gates look at."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_client.admin import CodebookAdmin
from foldmint_maintenance.datasets.loading import Digest, read_set
from foldmint_maintenance.datasets.records import PreparedSet, Record, prepared
from foldmint_maintenance.datasets.sampling import drawn_chains
from foldmint_maintenance.errors import InvalidSet
from foldmint_maintenance.repair.config import RepairConfig, RepairJob
from foldmint_maintenance.repair.run_record import NO_PROGRESS, Log, RunProgress
from foldmint_maintenance.training.latents import vectors_of
from foldmint_maintenance.training.phases import counted
from foldmint_tokenizer.model import Model

MAX_GATE_SHARE = 0.5
"""The largest share of a set that is kept for the gates."""


@dataclass(frozen=True, eq=False)
class DataSplit:
    """Vectors z (rows, out) of residues with a frame; records and data: their chains, None of a server's vectors."""

    z: Tensor
    records: Sequence[Record] = ()
    data: PreparedSet | None = None


@dataclass(frozen=True, eq=False)
class RepairInputs:
    """train: to repair on. gate: to look at. about: where it came from, for the manifest."""

    train: DataSplit
    gate: DataSplit
    about: dict[str, Any]


def prepare_inputs(model: Model, job: RepairJob, log: Log, progress: RunProgress = NO_PROGRESS) -> RepairInputs:
    """Vectors of a set's chains, or of servers' reservoirs.

    Raises InvalidSet if there are too few; FoldmintError if a server cannot be reached or keeps no reservoir.
    """
    return _of_servers(model, job, log) if job.servers else _of_data(model, job, log, progress)


def _of_data(model: Model, job: RepairJob, log: Log, progress: RunProgress) -> RepairInputs:
    assert job.data is not None  # noqa: S101 (for types; the job has checked it)
    config, digest = job.config, Digest()
    log(f"reading {job.data}")
    skip = lambda path, why: log(f"passed over {path}: {why}")  # noqa: E731
    advance = progress.phase("reading chains", None)
    records = list(counted(digest.through(read_set(job.data, skip)), advance))
    about: dict[str, Any] = {"name": job.data.name, "sha256": digest.sha256(), "chains": digest.chains}
    if job.gate_data is None:
        share = gate_share([(entry_fraction(record.id), len(record.sequence)) for record in records], config)
        held = [entry_fraction(record.id) < share for record in records]
        gate = [record for record, back in zip(records, held, strict=True) if back]
        records = [record for record, back in zip(records, held, strict=True) if not back]
    else:
        own = Digest()
        gate = list(counted(own.through(read_set(job.gate_data, skip)), advance))
        about["gate"] = {"name": job.gate_data.name, "sha256": own.sha256(), "chains": own.chains}
    if not records or not gate:
        raise InvalidSet(f"{job.data} has too few chains: some to repair on, and others for the gates, are needed")
    fault = gates_fault(len(gate), sum(len(record.sequence) for record in gate), config)
    if fault is not None:
        raise InvalidSet(fault)
    train = _split_of(model, drawn_chains(records, config.residues, config.seed), job, log, progress)
    looked_at = _split_of(model, drawn_chains(gate, config.gate_residues, config.seed), job, log, progress)
    about |= {"residues": len(train.z), "gate_residues": len(looked_at.z)}
    return RepairInputs(train, looked_at, about)


def _split_of(model: Model, records: list[Record], job: RepairJob, log: Log, progress: RunProgress) -> DataSplit:
    data = prepared(records)
    log(f"vectors of {len(data)} residues of {len(records)} chains")
    advance = progress.phase("computing vectors", len(data))
    vectors = vectors_of(model.encoder, data, np.arange(len(data)), job.group, job.device, advance)
    return DataSplit(vectors, records, data)


def entry_fraction(name: str) -> float:
    """A number from 0 to 1 that is the same for all chains of an entry; those below the gates' share are theirs."""
    entry = name.rsplit("_", 1)[0]
    return int.from_bytes(hashlib.sha256(entry.encode()).digest()[:8], "little") / 2**64


def gate_share(chains: Sequence[tuple[float, int]], config: RepairConfig) -> float:
    """The share of a set that is kept for the gates: `config.gate_share`, or up to `MAX_GATE_SHARE` if they need more.

    chains: the fraction of each chain's entry, and its residues.
    """
    needed, found, residues = 0.0, 0, 0
    for fraction, length in sorted(chains):
        if found >= config.min_gate_chains and residues >= config.min_gate_residues:
            break
        # Chains of an entry stay together: all that are below a share just above the fraction.
        needed, found, residues = math.nextafter(fraction, 1.0), found + 1, residues + length
    return max(config.gate_share, min(needed, MAX_GATE_SHARE))


def gates_fault(chains: int | None, residues: int, config: RepairConfig) -> str | None:
    """Why gates on so many chains and residues would prove little; None if they suffice, or the job is forced.

    chains: None of vectors without chains.
    """
    few = residues < config.min_gate_residues or (chains is not None and chains < config.min_gate_chains)
    if config.force or not few:
        return None
    counted = f"{residues} residues" if chains is None else f"{chains} chains with {residues} residues"
    return (
        f"the gates' data are {counted}, and {config.min_gate_chains} chains with {config.min_gate_residues} residues "
        "are needed to distinguish a better codebook from a worse one"
    )


def _of_servers(model: Model, job: RepairJob, log: Log) -> RepairInputs:
    """Of the servers' reservoirs, each counting as much as it has seen."""
    found: Tensor | None = None
    seen = [0]
    if job.group.rank == 0:
        samples, counts = [], []
        for address in job.servers:
            with CodebookAdmin(address, **job.connection) as admin:
                sample = admin.sample()
            if sample.encoder_digest != model.encoder_digest:
                raise InvalidSet(f"{address} serves another encoder than the store has")
            log(f"{address}: {len(sample.embeddings)} vectors of {sample.seen} residues")
            samples.append(np.asarray(sample.embeddings, np.float32))
            counts.append(sample.seen)
        found, seen = torch.from_numpy(_mix_samples(samples, counts, job.config.seed)), counts
    z = _broadcast(found, model.config.out, job)
    if len(z) < 2:
        raise InvalidSet("the servers' reservoirs hold too few vectors")
    order = np.random.default_rng(job.config.seed).permutation(len(z))
    kept = max(1, round(len(z) * job.config.gate_share))
    fault = gates_fault(None, kept, job.config)
    if fault is not None:
        raise InvalidSet(f"{fault}; a tenth of the servers' reservoirs is theirs: --reservoir of the servers")
    about = {"servers": len(job.servers), "residues": len(z) - kept, "gate_residues": kept, "seen": int(sum(seen))}
    return RepairInputs(DataSplit(z[order[kept:]][: job.config.residues]), DataSplit(z[order[:kept]]), about)


def _mix_samples(samples: list[NDArray[np.float32]], seen: list[int], seed: int) -> NDArray[np.float32]:
    """As many of each sample (rows, out) as its server's share of all residues asks for, as far as they reach."""
    total = sum(seen)
    if total == 0:
        return np.concatenate(samples)
    # The largest mixture in which no sample is asked for more than it has.
    size = min(len(sample) * total / count for sample, count in zip(samples, seen, strict=True) if count)
    random = np.random.default_rng(seed)

    def parts() -> Iterator[NDArray[np.float32]]:
        for sample, count in zip(samples, seen, strict=True):
            yield sample[random.permutation(len(sample))[: int(size * count / total)]]

    return np.concatenate(list(parts()))


def _broadcast(z: Tensor | None, out: int, job: RepairJob) -> Tensor:
    """Rank 0's vectors, in all processes."""
    group, device = job.group, job.device
    rows = int(group.broadcast(torch.tensor(0 if z is None else len(z), device=device)))
    own = torch.zeros(rows, out) if z is None else z
    return group.broadcast(own.to(device)).cpu()


def origin(job: RepairJob, inputs: RepairInputs) -> dict[str, Any]:
    """How the version was made, for its manifest."""
    config = job.config
    return {
        "made_by": "repair",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "foldmint": installed_version("foldmint"),
        "scope": config.scope,
        "strategy": config.strategy,
        "dead_threshold": config.dead_threshold,
        "measure": config.measure,
        "seed": config.seed,
        "data": inputs.about,
        "processes": job.group.size,
    }
