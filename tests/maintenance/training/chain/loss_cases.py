"""Chains and guesses for tests of losses, and all losses of a guess."""

import torch
from torch import Tensor

from foldmint_maintenance.training.chain import losses
from foldmint_maintenance.training.chain.losses import Chains, WeightedSum
from foldmint_tokenizer.decoder import BINNED_LOGITS, PAE_BINS, PLDDT_BINS, Rigids, backbone_atoms

LENGTH = 20
ROWS = torch.tensor([0, 3, 7, 8, 19])


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moved_away(atoms: Tensor) -> Tensor:
    """Atoms turned and carried away."""
    turn = torch.linalg.qr(random_tensor(3, 3).double())[0]
    turn = turn * torch.linalg.det(turn).sign()
    moved: Tensor = (atoms.double() @ turn.T + torch.tensor([5.0, -3.0, 8.0])).float()
    return moved


def guess_near(chains: Chains, size: float = 0.5) -> Rigids:
    """Frames near the true ones, as leaves of a graph."""
    near = losses.frames(chains.atoms + size * random_tensor(*chains.atoms.shape, seed=5))
    rotation = torch.where(chains.exists[..., None, None], near.rotation, torch.eye(3))
    return Rigids(rotation.requires_grad_(), near.origin.requires_grad_())


def every_loss(guess: Rigids, chains: Chains) -> dict[str, WeightedSum]:
    """All losses of a guess, with logits that hang on its place in the batch alone."""
    truth, atoms = losses.frames(chains.atoms), backbone_atoms(guess)
    places = random_tensor(LENGTH, LENGTH, 224, seed=6)[ROWS].expand(len(chains.atoms), -1, -1, -1)
    return {
        "step": losses.local_motion_loss(guess, truth, chains),
        "reach": losses.displacement_loss(guess, truth, chains),
        "distance": losses.distance_loss(atoms, chains, ROWS),
        "direction": losses.direction_loss(atoms, chains, ROWS),
        "binned": losses.binned_loss(places[..., BINNED_LOGITS], chains, ROWS),
        "plddt": losses.plddt_loss(places[:, 0, :, :PLDDT_BINS], atoms, chains),
        "pae": losses.pae_loss(places[..., :PAE_BINS], guess, truth, chains, ROWS),
    }


def mean_of(weighed: WeightedSum) -> float:
    return float(weighed[0] / weighed[1])


def along_axis(count: int) -> Chains:
    """Residues whose nine coordinates lie on the x axis, 1 Å apart."""
    atoms = torch.zeros(1, count, 3, 3)
    atoms[..., 0] = torch.arange(3.0 * count).view(1, count, 3)
    return Chains(atoms, torch.ones(1, count, dtype=torch.bool), torch.ones(1, count - 1, dtype=torch.bool))


def unturned(count: int) -> Rigids:
    """Frames without rotation, 3 Å apart."""
    origin = torch.zeros(1, count, 3)
    origin[0, :, 0] = 3 * torch.arange(count)
    return Rigids(torch.eye(3).expand(1, count, 3, 3), origin)


def turned_at(rigids: Rigids, residue: int, turn: list[list[float]]) -> Rigids:
    rotation = rigids.rotation.clone()
    rotation[0, residue] = torch.tensor(turn)
    return Rigids(rotation, rigids.origin)


QUARTER = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
