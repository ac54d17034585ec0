"""What a repair works on: vectors to move codes among, and chains, apart from them, that its gates look at."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from foldmint_maintenance.repair.config import RepairJob
from foldmint_maintenance.training.latents import vectors_of
from foldmint_tokenizer.model import Model

Tell = Callable[[str], None]


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


def prepare_inputs(model: Model, job: RepairJob, tell: Tell) -> RepairInputs:
    """Vectors of a set's chains, or of servers' reservoirs.

    Raises InvalidSet if there are too few; FoldmintError if a server cannot be reached or keeps no reservoir.
    """
    return _of_servers(model, job, tell) if job.servers else _of_data(model, job, tell)


def _of_data(model: Model, job: RepairJob, tell: Tell) -> RepairInputs:
    assert job.data is not None  # noqa: S101 (for types; the job has checked it)
    config, digest = job.config, Digest()
    tell(f"reading {job.data}")
    skip = lambda path, why: tell(f"passed over {path}: {why}")  # noqa: E731
    records = list(digest.through(read_set(job.data, skip)))
    about: dict[str, Any] = {"name": job.data.name, "sha256": digest.sha256(), "chains": digest.chains}
    if job.gate_data is None:
        held = [_held_back(record.id, config.gate_share) for record in records]
        gate = [record for record, back in zip(records, held, strict=True) if back]
        records = [record for record, back in zip(records, held, strict=True) if not back]
    else:
        own = Digest()
        gate = list(own.through(read_set(job.gate_data, skip)))
        about["gate"] = {"name": job.gate_data.name, "sha256": own.sha256(), "chains": own.chains}
    if not records or not gate:
        raise InvalidSet(f"{job.data} has too few chains: some to repair on, and others for the gates, are needed")
    train = _split_of(model, drawn_chains(records, config.residues, config.seed), job, tell)
    looked_at = _split_of(model, drawn_chains(gate, config.gate_residues, config.seed), job, tell)
    about |= {"residues": len(train.z), "gate_residues": len(looked_at.z)}
    return RepairInputs(train, looked_at, about)


def _split_of(model: Model, records: list[Record], job: RepairJob, tell: Tell) -> DataSplit:
    data = prepared(records)
    tell(f"vectors of {len(data)} residues of {len(records)} chains")
    return DataSplit(vectors_of(model.encoder, data, np.arange(len(data)), job.group, job.device), records, data)


def _held_back(name: str, share: float) -> bool:
    """Whether a chain is the gates': by its entry's name, so that chains of one entry stay together."""
    entry = name.rsplit("_", 1)[0]
    return int.from_bytes(hashlib.sha256(entry.encode()).digest()[:8], "little") < share * 2**64


def _of_servers(model: Model, job: RepairJob, tell: Tell) -> RepairInputs:
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
            tell(f"{address}: {len(sample.embeddings)} vectors of {sample.seen} residues")
            samples.append(np.asarray(sample.embeddings, np.float32))
            counts.append(sample.seen)
        found, seen = torch.from_numpy(_mix_samples(samples, counts, job.config.seed)), counts
    z = _broadcast(found, model.config.out, job)
    if len(z) < 2:
        raise InvalidSet("the servers' reservoirs hold too few vectors")
    order = np.random.default_rng(job.config.seed).permutation(len(z))
    kept = max(1, round(len(z) * job.config.gate_share))
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
