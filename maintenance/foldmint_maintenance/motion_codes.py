"""From an encoder of motions to a model's vectors and codes: the scale of its last layer, and k-means.

One encoder serves many codebooks: what a rotation counts against a translation (the lever arm), and what the
environment counts against both, is a matter of its last layer's rows. `docs/training.md` shows what each choice gives.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from foldmint_maintenance import ema
from foldmint_tokenizer.codebook import Codebook, nearest_code
from foldmint_tokenizer.encoder import Encoder, ModelConfig
from foldmint_tokenizer.motions import MOTION, code_motions


@dataclass(frozen=True)
class MotionCodesConfig:
    """Which vectors, and how codes are made of them.

    lever: Å, that rotations are multiplied with. environment: Å that a standard deviation of each environment feature
    counts; 0: vectors are motions alone. residues: of the set, drawn at random, that k-means sees. rounds: of k-means,
    the first ones on a part of them. batch: residues a step, which the counts of the codes are told in.
    """

    lever: float = 10.0
    environment: float = 1.5
    residues: int = 600_000
    rounds: int = 16
    batch: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lever <= 0 or self.environment < 0:
            raise ValueError("lever must be positive, and environment cannot be negative")
        if min(self.residues, self.rounds, self.batch) < 1:
            raise ValueError("residues, rounds and batch must be positive")


def scaled(encoder: Encoder, z: Tensor, lever: float, config: MotionCodesConfig) -> Encoder:
    """The encoder with its last layer's rows scaled, and those of the environment left out where it counts nothing.

    z: (rows, out), vectors of the encoder, of which the spread of each environment feature is taken. lever: Å, that the
    encoder has now.
    """
    scale, shift = scales(z, lever, config)
    old = encoder.config
    renewed = Encoder(ModelConfig(old.width, old.heads, old.layers, len(scale), old.codes))
    state = dict(encoder.state_dict())
    for name in ("pre_vq_proj.weight", "pre_vq_proj.bias"):
        state[name] = state[name][: len(scale)].double()
    state["pre_vq_proj.weight"] = (state["pre_vq_proj.weight"] * scale[:, None]).float()
    state["pre_vq_proj.bias"] = ((state["pre_vq_proj.bias"] - shift) * scale).float()
    renewed.load_state_dict(state)
    return renewed.eval()


def scales(z: Tensor, lever: float, config: MotionCodesConfig) -> tuple[Tensor, Tensor]:
    """What `scaled` multiplies vectors with, after taking something from them: scale, shift (new out,), float64."""
    motion = torch.tensor([config.lever / lever] * 9 + [1.0] * 3, dtype=torch.float64)
    around = z[:, MOTION:].double()
    spread = config.environment / around.std(0).clamp_min(1e-6)
    if not config.environment:
        return motion, torch.zeros(MOTION, dtype=torch.float64)
    return torch.cat([motion, spread]), torch.cat([torch.zeros(MOTION, dtype=torch.float64), around.mean(0)])


def motion_codebook(z: Tensor, size: int, config: MotionCodesConfig) -> Codebook:
    """Codes of vectors z (rows, out) by k-means (Lloyd), with exact rotations; a code that nobody hits is drawn anew.

    The first rounds see a part of the vectors, in which an error is small against the distance to the next code.
    """
    generator = torch.Generator().manual_seed(config.seed)
    part = min(len(z), 40 * size)
    codes = z[torch.randperm(len(z), generator=generator)[:size]].clone()
    codebook = Codebook(codes, torch.zeros(len(codes)), torch.zeros_like(codes))
    for turn in range(config.rounds):
        whole = turn >= config.rounds - 3
        seen = z if whole else z[torch.randperm(len(z), generator=generator)[:part]]
        code, _ = nearest_code(seen, codebook.embeddings)
        # Without memory of earlier rounds, a moving average is a plain mean.
        codebook = ema.updated(codebook, *ema.batch_statistics(seen, code, size), decay=0.0)
        dead = torch.nonzero(codebook.N == 0)[:, 0]
        if len(dead) and turn < config.rounds - 3:
            codebook.embeddings[dead] = seen[torch.randint(len(seen), (len(dead),), generator=generator)]
    vectors = exact(codebook.embeddings, config.lever)
    count = codebook.N * (config.batch / len(z))
    return Codebook(vectors, count, vectors * count[:, None])


def exact(embeddings: Tensor, lever: float) -> Tensor:
    """The vectors (codes, out) with the nearest true rotations in place of what means of rotations are."""
    rotation, _ = code_motions(embeddings, lever)
    return torch.cat([rotation.flatten(1) * lever, embeddings[:, 9:]], 1)
