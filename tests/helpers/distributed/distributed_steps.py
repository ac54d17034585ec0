"""Run by torchrun: trains the same steps in a share of a batch, and writes what each process came to.

torchrun distributed_steps.py SET MODEL OUT
"""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from foldmint_maintenance.datasets.records import prepared, read_parquet
from foldmint_maintenance.distributed.process_group import ProcessGroup, process_group
from foldmint_maintenance.training.chain.trainer import ChainTrainer
from foldmint_maintenance.training.config import ChainConfig, LossWeights, TrainConfig
from foldmint_maintenance.training.encoder_trainer import Trainer
from foldmint_maintenance.training.latents import tokens_of, vectors_of
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.sizes import DecoderConfig
from foldmint_tokenizer.store.model_store import load_model

CODES = TrainConfig(
    steps=10,
    batch=64,
    unquantized=2,
    settling=2,
    initial_batches=2,
    initial_rounds=2,
    warmup=2,
    dead_share=0.6,
    compiled=False,
)
# All losses count; a batch is 4 chains of about 32 residues.
# Confidence only while its heads settle: its targets are bins, and rounding may move one into the next.
_EVERY = LossWeights(binned=0.1, inverse_folding=0.1, confidence=0.0)
JOINT, DECODER = (
    ChainConfig(
        stage=stage,
        steps=8,
        batch=128,
        crop=32,
        head_steps=3,
        learning_rate=1e-4,
        pair_rows=8,
        warmup=2,
        coarse_from=0.25,
        settling=2,
        dead_share=0.6,
        weights=_EVERY,
    )
    for stage in ("joint", "decoder")
)


def states(data_path: Path, model_path: Path, group: ProcessGroup) -> dict[str, dict[str, torch.Tensor]]:
    """What each training leaves, by its name: all that is trained, the codebook, and figures of every step."""
    data = prepared(read_parquet(data_path))
    model = load_model(model_path)
    held = model.codebook.codebook
    tokens = tokens_of(model.encoder, held, data, group, "cpu")
    select = torch.arange(0, len(data), 3).numpy()
    vectors = vectors_of(model.encoder, data, select, group, "cpu")
    found = {"set": {"tokens": torch.from_numpy(tokens), "vectors": vectors}}
    for name in ("codes", "decoder", "joint"):
        trainer: Trainer | ChainTrainer
        if name == "codes":
            trainer = Trainer(model.config, CODES, data, group)
        else:
            torch.manual_seed(0)
            decoder = Decoder(DecoderConfig(32, 2, 2, chained=True))
            config, given = (JOINT, None) if name == "joint" else (DECODER, tokens)
            trainer = ChainTrainer(config, data, model.encoder, held, decoder, given, group)
        told: list[Any] = []
        trainer.run(told.append)
        state = {f"codebook.{part}": value for part, value in trainer.codebook._asdict().items()}
        for part, module in trainer.modules.items():
            state |= {f"{part}.{key}": value for key, value in module.state_dict().items()}
        state["told"] = torch.tensor([tuple(step) for step in told])
        found[name] = state
    return found


def exchanged(group: ProcessGroup) -> dict[str, torch.Tensor]:
    """What a process has after each kind of exchange; what it brings tells its rank."""
    own = torch.tensor([1.0, 2.0]) + group.rank
    used, unused = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    used.grad = own.clone()
    group.average_gradients([unused, used])
    return {
        "summed": group.all_reduce_sum(own),
        "mean": group.mean(own, torch.tensor(1.0 + group.rank)),
        "gradient": used.grad,
        "joined": group.all_gather(own.expand(1 + 2 * group.rank, 2)),
        "first": group.broadcast(own),
        "unused": torch.tensor(unused.grad is None),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    data_argument, model_argument, out = (Path(argument) for argument in sys.argv[1:])
    with process_group(torch.device("cpu")) as processes:
        every = {"group": exchanged(processes)} | states(data_argument, model_argument, processes)
        for training, tensors in every.items():
            save_file(
                {name: value.clone().contiguous() for name, value in tensors.items()},
                out / f"{training}.{processes.rank}.safetensors",
            )
