"""Losses of what a decoder predicts beside the backbone: binned distances and directions, plDDT, pAE."""

from math import log

import numpy as np
import pytest
import torch
from maintenance.training.chain.loss_cases import (
    LENGTH,
    QUARTER,
    ROWS,
    guess_near,
    mean_of,
    random_tensor,
)
from torch.nn import functional as F

from foldmint_maintenance.training.chain import losses
from foldmint_maintenance.training.chain.losses import Chains
from foldmint_tokenizer.decoder import PAE_BINS, PLDDT_BINS


def _square(place: float, turn: list[list[float]]) -> Chains:
    """Two residues with CA to C along x and CA to N along y; the second is turned, and its C-beta `place` Å away."""
    residue = torch.tensor([[0.0, 1.5, 0.0], [0.0, 0.0, 0.0], [1.5, 0.0, 0.0]])
    pair = torch.stack([residue, residue @ torch.tensor(turn).T])
    beta = losses.beta_carbons(pair[None])[0]
    pair[1] += beta[0] - beta[1] + torch.tensor([0.0, 0.0, place])
    return Chains(pair[None], torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool))


@pytest.mark.parametrize(
    ("distance", "bin_"),
    [(2.30, 0), (2.32, 1), (2.62, 1), (2.63, 2), (12.06, 32), (21.37, 61), (21.68, 62), (21.69, 63), (90.0, 63)],
)
def test_distances_of_beta_carbons_fall_into_their_bin(distance: float, bin_: int) -> None:
    chains = _square(distance, [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    logits = torch.zeros(1, 1, 2, 160)
    logits[0, 0, 1, bin_] = 100
    logits[0, 0, 0, 0] = 100  # itself
    total, weight = losses.binned_loss(logits, chains, torch.tensor([0]))
    assert float(weight) == 2
    assert float(total) == pytest.approx(2 * log(16), abs=1e-4)  # nothing is known of the directions


@pytest.mark.parametrize(
    ("turn", "bins"),
    [
        ([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], (15, 15, 15, 8, 8, 8)),
        ([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]], (0, 0, 15, 8, 8, 8)),
        (QUARTER, (8, 8, 15, 0, 8, 8)),
    ],
)
def test_products_of_directions_fall_into_their_bin(turn: list[list[float]], bins: tuple[int, ...]) -> None:
    chains = _square(5.0, turn)
    logits = torch.zeros(1, 1, 2, 160)
    for which, place in enumerate(bins):
        logits[0, 0, 1, 64 + 16 * which + place] = 100
    total, _ = losses.binned_loss(logits, chains, torch.tensor([0]))
    # Of the first residue with itself, nothing is said; of the pair, nothing of the distance.
    assert float(total) == pytest.approx(2 * log(64) + log(16), abs=1e-4)


def test_confidence_is_asked_for_the_lddt_of_each_residue(chains: Chains) -> None:
    guess = chains.atoms + 0.8 * random_tensor(*chains.atoms.shape)
    logits = random_tensor(2, LENGTH, PLDDT_BINS, seed=3)
    total, seen = 0.0, set()
    for chain in range(2):
        made, real = (atoms[chain, :, 1].double().numpy() for atoms in (guess, chains.atoms))
        there = [i for i in range(LENGTH) if chains.exists[chain, i]]
        for i in there:
            near = [j for j in there if j != i and np.linalg.norm(real[i] - real[j]) < 15]
            off = [abs(np.linalg.norm(real[i] - real[j]) - np.linalg.norm(made[i] - made[j])) for j in near]
            lddt = sum(error < bound for error in off for bound in (0.5, 1, 2, 4)) / 4 / max(1, len(near))
            target = min(int(lddt * 50), 49)
            seen.add(target)
            total -= float(F.log_softmax(logits[chain, i].double(), 0)[target])
    found = losses.plddt_loss(logits, guess, chains)
    assert len(seen) > 5
    assert float(found[0]) == pytest.approx(total, rel=1e-5)
    assert float(found[1]) == 2 * LENGTH - 1
    # A perfect guess is of the last bin.
    logits = torch.zeros(2, LENGTH, PLDDT_BINS)
    logits[..., -1] = 100
    assert mean_of(losses.plddt_loss(logits, chains.atoms, chains)) == pytest.approx(0, abs=1e-6)


def test_aligned_errors_are_asked_for_as_seen_from_each_row(chains: Chains) -> None:
    guess, truth = guess_near(chains, 3.0), losses.frames(chains.atoms)
    logits = random_tensor(2, len(ROWS), LENGTH, PAE_BINS, seed=3)
    total, weight, seen = 0.0, 0, set()
    for chain in range(2):
        for row, i in enumerate(ROWS.tolist()):
            for j in range(LENGTH):
                if chains.exists[chain, i] and chains.exists[chain, j]:
                    places = [
                        r.rotation[chain, i].detach().double().T
                        @ (r.origin[chain, j] - r.origin[chain, i]).detach().double()
                        for r in (guess, truth)
                    ]
                    error = float((places[0] - places[1]).norm())
                    # Half an ångström a bin, from 0 to 0.5 on; beyond 31 all the same.
                    target = min(max(int(np.ceil(error / 0.5)) - 1, 0), 62)
                    seen.add(target)
                    total -= float(F.log_softmax(logits[chain, row, j].double(), 0)[target])
                    weight += 1
    found = losses.pae_loss(logits, guess, truth, chains, ROWS)
    assert {0} < seen
    assert max(seen) > 20
    assert float(found[0]) == pytest.approx(total, rel=1e-5)
    assert float(found[1]) == weight
