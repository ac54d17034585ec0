"""A codebook that was harmed, and what a process ends with that takes part in its repair; run by torchrun.

distributed_repair.py STORE DATA GATE_DATA OUT
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from foldmint_maintenance.distributed.process_group import ProcessGroup, process_group
from foldmint_maintenance.repair.config import RepairConfig, RepairJob
from foldmint_maintenance.repair.decoder_finetune import RowConfig
from foldmint_maintenance.repair.gates import GateLimits
from foldmint_maintenance.repair.job import repair
from foldmint_maintenance.repair.result import RepairResult
from foldmint_tokenizer.codebook import Codebook

KILLED = (2, 5, 11)
LIMITS = GateLimits(churn=1.0, perplexity=1.0, quantization_error=1.0, reconstruction=1.0)
CONFIG = RepairConfig(
    residues=1000,
    rounds=3,
    gate_residues=500,
    min_gate_chains=0,
    min_gate_residues=0,
    rows=RowConfig(steps=3, batch=128),
    limits=LIMITS,
)


def killed(codebook: Codebook, codes: tuple[int, ...] = KILLED) -> Codebook:
    """Some codes far away and without hits; the others count for a thousand residues."""
    far = codebook.embeddings.clone()
    far[list(codes)] += 1e4
    counts = torch.full_like(codebook.N, 1000 / len(codebook.N))
    counts[list(codes)] = 0
    return Codebook(far, counts, far * counts[:, None])


def repaired(store: Path, data: Path, gate_data: Path, group: ProcessGroup) -> RepairResult:
    """The repair of a store, by the processes of a group."""
    return repair(RepairJob(str(store), CONFIG, data, gate_data=gate_data, group=group), None, lambda _: None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    store_argument, data_argument, gate_argument, out = (Path(argument) for argument in sys.argv[1:])
    with process_group(torch.device("cpu")) as processes:
        done = repaired(store_argument, data_argument, gate_argument, processes)
        assert done.codebook is not None
        save_file(
            {name: value.contiguous() for name, value in done.codebook._asdict().items()},
            out / f"codebook.{processes.rank}.safetensors",
        )
