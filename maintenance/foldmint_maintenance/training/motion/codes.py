"""Codebooks from a trained motion encoder: scaling of its last layer, and k-means.

One encoder serves many codebooks. The weights of rotations (the lever arm), translations and environment features
relative to each other are scales of its last layer's rows. `docs/training.md` compares choices.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from foldmint_maintenance.errors import InvalidSet
from foldmint_maintenance.training.config import MotionCodesConfig
from foldmint_maintenance.training.phases import Phase, silent
from foldmint_maintenance.vq import ema
from foldmint_maintenance.vq.quantizer import assigned
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.motion.motions import MOTION, code_motions
from foldmint_tokenizer.sizes import ModelConfig


class VectorSpace(NamedTuple):
    """Affine map of an encoder's vectors: z @ matrix + shift; matrix (out, new out), shift (new out,)."""

    matrix: Tensor
    shift: Tensor

    @classmethod
    def of(cls, z: Tensor, neighbors: Tensor, lever: float, config: MotionCodesConfig) -> "VectorSpace":
        """The space with the scales of `config`.

        z: (rows, out), vectors of the encoder, whose lever arm is `lever`, Å. neighbors: (rows,), number of CA within
        12 Å, on which the environment features are regressed to find the direction of burial.
        """
        motion = torch.diag(torch.tensor([config.lever / lever] * 9 + [1.0] * 3, dtype=torch.float64))
        around = z[:, MOTION:].double()
        if not around.shape[1]:
            return cls(motion, torch.zeros(MOTION, dtype=torch.float64))
        mean, spread = around.mean(0), around.std(0).clamp_min(1e-6)
        unit = (around - mean) / spread
        burial = torch.linalg.lstsq(unit, (neighbors.double() - neighbors.double().mean())[:, None]).solution
        # An orthonormal basis whose first column is the direction of burial.
        basis = torch.linalg.qr(torch.cat([burial, torch.eye(len(burial), dtype=torch.float64)], 1)).Q
        weights = torch.tensor([config.burial] + [config.environment] * (len(burial) - 1), dtype=torch.float64)
        kept = weights > 0
        environment = (basis[:, kept] * weights[kept]) / spread[:, None]
        matrix = torch.block_diag(motion, environment)  # type: ignore[no-untyped-call]
        return cls(matrix, torch.cat([torch.zeros(MOTION, dtype=torch.float64), -mean @ environment]))

    @classmethod
    def like(cls, z: Tensor, other: Tensor) -> "VectorSpace":
        """The space in which each environment feature has the mean and the spread that it has in other vectors.

        z: (rows, out); other: (rows, up to out), of the same residues, which says how many features are kept.
        """
        around, wanted = z[:, MOTION : other.shape[1]].double(), other[:, MOTION:].double()
        factor = _spread(wanted) / _spread(around).clamp_min(1e-6)
        matrix = torch.zeros(z.shape[1], other.shape[1], dtype=torch.float64)
        matrix.diagonal().copy_(torch.cat([torch.ones(MOTION, dtype=torch.float64), factor]))
        shift = torch.zeros(other.shape[1], dtype=torch.float64)
        shift[MOTION:] = wanted.mean(0) - around.mean(0) * factor
        return cls(matrix, shift)

    def __call__(self, z: Tensor) -> Tensor:
        """Vectors (rows, new out), float32, of vectors z (rows, out)."""
        return (z.double() @ self.matrix + self.shift).float()

    def encoder(self, encoder: Encoder) -> Encoder:
        """The encoder with its last layer mapped into this space."""
        old = encoder.config
        renewed = Encoder(ModelConfig(old.width, old.heads, old.layers, len(self.shift), old.codes))
        state = dict(encoder.state_dict())
        weight, bias = (state[f"pre_vq_proj.{name}"].double() for name in ("weight", "bias"))
        state["pre_vq_proj.weight"] = (self.matrix.T @ weight).float()
        state["pre_vq_proj.bias"] = (bias @ self.matrix + self.shift).float()
        renewed.load_state_dict(state)
        return renewed.eval()


def _spread(features: Tensor) -> Tensor:
    """Standard deviations (features,) of features (rows, features), of which there may be none."""
    return (features - features.mean(0)).square().mean(0).sqrt()


def motion_codebook(z: Tensor, size: int, config: MotionCodesConfig, phase: Phase = silent) -> Codebook:
    """Codes of vectors z (rows, out) by k-means (Lloyd), with exact rotations.

    Codes without a hit are re-initialized to random vectors. All but the last three rounds use a part of the vectors,
    for speed. phase: called once, with the number of vectors to assign in all rounds. Raises InvalidSet if there are
    fewer vectors than codes.
    """
    if len(z) < size:
        raise InvalidSet(f"{len(z)} residues with a frame are too few for {size} codes")
    generator = torch.Generator().manual_seed(config.seed)
    part = min(len(z), 40 * size)
    codes = z[torch.randperm(len(z), generator=generator)[:size]].clone()
    codebook = Codebook(codes, torch.zeros(len(codes)), torch.zeros_like(codes))
    whole_rounds = min(3, config.rounds)
    advance = phase("k-means", (config.rounds - whole_rounds) * part + whole_rounds * len(z))
    for iteration in range(config.rounds):
        whole = iteration >= config.rounds - 3
        seen = z if whole else z[torch.randperm(len(z), generator=generator)[:part]]
        code = assigned(seen, codebook.embeddings, advance)
        # With a decay of 0, a moving average is a plain mean.
        codebook = ema.ema_update(codebook, *ema.batch_statistics(seen, code, size), decay=0.0)
        dead = torch.nonzero(codebook.N == 0)[:, 0]
        if len(dead) and iteration < config.rounds - 3:
            codebook.embeddings[dead] = seen[torch.randint(len(seen), (len(dead),), generator=generator)]
    vectors = exact(codebook.embeddings, config.lever)
    count = codebook.N * (config.batch / len(z))
    return Codebook(vectors, count, vectors * count[:, None])


def exact(embeddings: Tensor, lever: float) -> Tensor:
    """The vectors (codes, out) with each rotation part, a mean of rotations, replaced by the nearest rotation."""
    rotation, _ = code_motions(embeddings, lever)
    return torch.cat([rotation.flatten(1) * lever, embeddings[:, 9:]], 1)
