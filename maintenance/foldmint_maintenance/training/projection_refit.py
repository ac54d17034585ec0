"""Refit of a trained encoder's last layer, so that distances weigh what a decoder needs most.

The local objective weighs all nine residues of a fragment equally, so that its ends, which vary most, dominate the
codes; reconstruction depends on the motion from each residue to the next. The encoder's last linear layer is composed
with a linear map, found by least squares, from its vectors to fragments with weighted positions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from foldmint_maintenance.datasets.fragments import REACH, WINDOW
from foldmint_tokenizer.encoder import Encoder, ModelConfig

_ATOMS = 9  # coordinates a place: N, CA and C


@dataclass(frozen=True)
class RefitConfig:
    """weights: of the positions of a fragment, by their distance from its middle, 0 to 4. dimensions: of the new
    vectors. residues: size of the random sample for the map and the codes. rounds: of k-means.
    """

    weights: tuple[float, ...] = (1.0, 1.2, 0.7, 0.55, 0.5)
    dimensions: int = 24
    residues: int = 1_000_000
    rounds: int = 20

    def __post_init__(self) -> None:
        if len(self.weights) != REACH + 1 or min(self.weights) < 0 or max(self.weights) == 0:
            raise ValueError(f"weights are {REACH + 1} numbers, none negative and not all zero")
        if min(self.dimensions, self.residues, self.rounds) < 1:
            raise ValueError("dimensions, residues and rounds must be positive")


def refitted(encoder: Encoder, z: Tensor, windows: Tensor, config: RefitConfig) -> Encoder:
    """The encoder with its last layer refitted.

    z: (rows, out), its vectors; windows: (rows, 9, 3, 3), Å, all complete, in the rows' frames. A distance between the
    new vectors is about that between the weighed windows. Raises ValueError if there are more dimensions than `out`.
    """
    old = encoder.config
    if config.dimensions > old.out:
        raise ValueError(f"{config.dimensions} dimensions cannot be had of vectors of {old.out}")
    place = torch.arange(WINDOW).sub(REACH).abs()
    weight = torch.tensor(config.weights, dtype=torch.float64)[place].repeat_interleave(_ATOMS)
    # In float64, by the normal equations: the columns' lengths differ a hundredfold.
    inputs = torch.cat([z.double(), torch.ones(len(z), 1, dtype=torch.float64)], 1)
    target = windows.flatten(1).double() * weight
    solution = torch.linalg.solve(inputs.T @ inputs, inputs.T @ target)  # (out + 1, 81)
    predicted = inputs @ solution
    center = predicted.mean(0)
    spread = (predicted - center).T @ (predicted - center)
    axes = torch.linalg.eigh(spread).eigenvectors.flip(1)[:, : config.dimensions]
    turn, shift = solution[:-1] @ axes, (solution[-1] - center) @ axes
    renewed = Encoder(ModelConfig(old.width, old.heads, old.layers, config.dimensions, old.codes))
    state = dict(encoder.state_dict())
    state["pre_vq_proj.weight"] = (turn.T @ state["pre_vq_proj.weight"].double()).float()
    state["pre_vq_proj.bias"] = (state["pre_vq_proj.bias"].double() @ turn + shift).float()
    renewed.load_state_dict(state)
    return renewed.eval()
