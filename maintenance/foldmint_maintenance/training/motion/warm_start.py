"""Warm start: a training of an encoder of motions that begins with the encoder of a model."""

import hashlib
from dataclasses import dataclass, replace

import torch

from foldmint_maintenance.errors import InvalidRecipe
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.motion.motions import MOTION
from foldmint_tokenizer.sizes import ModelConfig

SMALLEST = MOTION + 2
"""Numbers of a vector with which an encoder is trained: a motion, and two of the environment."""

_ROTATION = 9
_LAST = "pre_vq_proj"


@dataclass(frozen=True)
class WarmStart:
    """Where a training begins. lever: Å, the lever arm of the encoder's vectors."""

    encoder: Encoder
    lever: float

    @property
    def digest(self) -> str:
        """SHA-256 of lever arm and weights."""
        digest = hashlib.sha256(repr(self.lever).encode())
        for name, value in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def sizes(self, asked: ModelConfig | None) -> ModelConfig:
        """The sizes to train with: those asked for, or the encoder's, with room for an environment.

        Raises InvalidRecipe, naming them, if others than `out` and `codes` differ from the encoder's, or if the vectors
        asked for have fewer numbers than the encoder's.
        """
        own = self.encoder.config
        if asked is None:
            return replace(own, out=max(own.out, SMALLEST))
        different = [name for name in ("width", "heads", "layers") if getattr(asked, name) != getattr(own, name)]
        different += ["out"] if asked.out < own.out else []
        if different:
            told = ", ".join(f"{name} is {getattr(own, name)}, not {getattr(asked, name)}" for name in different)
            raise InvalidRecipe(f"encoder: the model's encoder has other sizes than the recipe: {told}")
        return asked

    @torch.no_grad()
    def load(self, encoder: Encoder, lever: float) -> None:
        """Give an encoder of the sizes above these weights, and the motion in its vectors another lever arm.

        Rows of the last layer that have no counterpart here stay as they are.
        """
        state, own = encoder.state_dict(), self.encoder.state_dict()
        for name, value in own.items():
            if not name.startswith(_LAST):
                state[name].copy_(value)
        for name in (f"{_LAST}.weight", f"{_LAST}.bias"):
            rows = own[name].clone()
            rows[:_ROTATION] *= lever / self.lever
            state[name][: len(rows)].copy_(rows)
