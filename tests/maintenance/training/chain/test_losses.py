"""Losses of decoded backbones: what they see, what they do not, and what must not count."""

from math import log, sqrt

import numpy as np
import pytest
import torch
from maintenance.training.chain.loss_cases import (
    LENGTH,
    QUARTER,
    ROWS,
    along_axis,
    every_loss,
    guess_near,
    mean_of,
    moved_away,
    random_tensor,
    turned_at,
    unturned,
)

from foldmint_maintenance.training.chain import losses
from foldmint_maintenance.training.chain.losses import Chains
from foldmint_tokenizer.decoder import Rigids
from foldmint_tokenizer.frames import backbone_frames

FLOOR = sqrt(1e-3)


def test_frames_are_those_of_the_tokenizer(chains: Chains) -> None:
    for index, atoms in enumerate(chains.atoms.numpy()):
        expected = backbone_frames(np.where(chains.exists[index].numpy()[:, None, None], atoms, np.nan))
        made = losses.frames(chains.atoms[index])
        there = chains.exists[index].numpy()
        np.testing.assert_allclose(made.rotation.numpy()[there], expected.rotation[there], atol=1e-5)
        np.testing.assert_allclose(made.origin.numpy()[there], expected.origin[there], atol=1e-5)
        assert torch.isfinite(made.rotation).all()


def test_nothing_is_lost_by_a_copy_that_is_turned_and_moved(chains: Chains) -> None:
    atoms = moved_away(chains.atoms)
    guess, truth = losses.frames(atoms), losses.frames(chains.atoms)
    assert mean_of(losses.distance_loss(atoms, chains, ROWS)) == pytest.approx(0, abs=1e-6)
    assert mean_of(losses.direction_loss(atoms, chains, ROWS)) == pytest.approx(0, abs=1e-6)
    # These two have a floor, below which an error is rounding.
    assert mean_of(losses.local_motion_loss(guess, truth, chains)) == pytest.approx(1.3 * FLOOR, abs=1e-4)
    assert mean_of(losses.displacement_loss(guess, truth, chains)) == pytest.approx(log(0.01), abs=1e-3)


def test_a_mirror_image_has_the_distances_and_not_the_directions(chains: Chains) -> None:
    mirrored = chains.atoms * torch.tensor([1.0, 1.0, -1.0])
    assert mean_of(losses.distance_loss(mirrored, chains, ROWS)) == pytest.approx(0, abs=1e-6)
    assert mean_of(losses.direction_loss(mirrored, chains, ROWS)) > 1
    assert mean_of(losses.local_motion_loss(losses.frames(mirrored), losses.frames(chains.atoms), chains)) > 1


def test_a_step_is_told_by_what_it_turns_and_moves() -> None:
    chains, truth = along_axis(3), unturned(3)
    moved = Rigids(truth.rotation, truth.origin + torch.tensor([[[0.0, 0, 0], [0, 0, 0], [3, 4, 0]]]))
    one = FLOOR + 0.3 * sqrt(25 + 1e-3)
    assert mean_of(losses.local_motion_loss(moved, truth, chains)) == pytest.approx((1.3 * FLOOR + one) / 2)
    # A quarter turn of the last residue: the Frobenius norm is 2.
    last = turned_at(truth, 2, QUARTER)
    turned = sqrt(4 + 1e-3) + 0.3 * FLOOR
    assert mean_of(losses.local_motion_loss(last, truth, chains)) == pytest.approx((1.3 * FLOOR + turned) / 2)
    # Of the first residue: seen from it, the second is 3 √2 Å from where it should be.
    first = sqrt(4 + 1e-3) + 0.3 * sqrt(18 + 1e-3)
    assert mean_of(losses.local_motion_loss(turned_at(truth, 0, QUARTER), truth, chains)) == pytest.approx(
        (first + 1.3 * FLOOR) / 2
    )


def test_reaches_weigh_their_inverse() -> None:
    chains, truth = along_axis(5), unturned(5)
    origin = truth.origin.clone()
    origin[0, 4, 2] += 2
    right, wrong = log(0.01), log(4.01)
    # Of reach 2 there are three pairs, of reach 4 one; each is seen from both ends.
    expected = (2 / 2 * (2 * right + wrong) + 2 / 4 * wrong) / (2 / 2 * 3 + 2 / 4)
    assert mean_of(losses.displacement_loss(Rigids(truth.rotation, origin), truth, chains)) == pytest.approx(
        expected, rel=1e-4
    )
    origin = truth.origin.clone()
    origin[0, 1, 2] += 2
    expected = (2 / 2 * (2 * right + wrong) + 2 / 4 * right) / (2 / 2 * 3 + 2 / 4)
    assert mean_of(losses.displacement_loss(Rigids(truth.rotation, origin), truth, chains)) == pytest.approx(
        expected, rel=1e-4
    )


def test_distances_count_by_their_square_up_to_a_bound() -> None:
    chains, rows = along_axis(2), torch.arange(2)
    # Of six atoms in a row, the squared differences of all pairs of places add up to 210.
    assert mean_of(losses.distance_loss(2 * chains.atoms, chains, rows)) == pytest.approx(210 / 36)
    assert mean_of(losses.distance_loss(7 * chains.atoms, chains, rows)) == pytest.approx(30 * 25 / 36)
    first = losses.distance_loss(2 * chains.atoms, chains, torch.tensor([0]))
    assert float(first[1]) == 18  # three atoms to all six
    assert float(first[0]) == sum((i - j) ** 2 for i in range(3) for j in range(6))


def test_directions_are_all_products_of_six_vectors_up_to_a_bound(chains: Chains) -> None:
    guess = chains.atoms + 0.3 * random_tensor(*chains.atoms.shape)
    total, weight = 0.0, 0
    for chain in range(2):
        vectors = []
        for made in (guess[chain].double().numpy(), chains.atoms[chain].double().numpy()):
            own = []
            for i in range(LENGTH):
                n, ca, c = made[i]
                onward = made[i + 1, 0] - c if i + 1 < LENGTH else np.zeros(3)
                back = n - made[i - 1, 2] if i else np.zeros(3)
                normals = -np.cross(ca - n, c - ca), np.cross(back, ca - n), np.cross(c - ca, onward)
                own.append([ca - n, c - ca, onward, *normals])
            vectors.append(np.array(own))
        bound = [True, *chains.follows[chain].tolist(), True]
        whole = [bool(chains.exists[chain, i]) and bound[i] and bound[i + 1] for i in range(LENGTH)]
        for row in ROWS.tolist():
            for column in range(LENGTH):
                if whole[row] and whole[column]:
                    apart = [v[row] @ v[column].T for v in vectors]
                    total += np.minimum((apart[0] - apart[1]) ** 2, 20).sum()
                    weight += 36
    found = losses.direction_loss(guess, chains, ROWS)
    assert float(found[1]) == weight
    assert float(found[0]) == pytest.approx(total, rel=1e-4)


LOSSES = ["step", "reach", "distance", "direction", "binned", "plddt", "pae"]


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_missing_does_not_count(name: str, chains: Chains) -> None:
    guess = guess_near(chains)
    expected = every_loss(guess, chains)[name]
    origin, rotation = guess.origin.detach().clone(), guess.rotation.detach().clone()
    origin[0, 7] += 50
    rotation[0, 7] = torch.tensor(QUARTER)
    atoms = chains.atoms.clone()
    atoms[0, 7] = random_tensor(3, 3)
    found = every_loss(Rigids(rotation, origin), chains._replace(atoms=atoms))[name]
    torch.testing.assert_close(found, (expected[0].detach(), expected[1]))


@pytest.mark.parametrize("name", ["step", "direction"])
def test_what_lies_across_a_break_does_not_count(name: str, chains: Chains) -> None:
    """From N of residue 12 on, where the break ends, all may lie elsewhere: a step across it does not count."""
    guess, truth = losses.frames(chains.atoms), losses.frames(chains.atoms)
    atoms = chains.atoms.clone()
    atoms[1, 12:] += torch.tensor([1.0, 2.0, 3.0])
    moved = Rigids(guess.rotation, atoms[:, :, 1])
    found = {
        "step": losses.local_motion_loss(moved, truth, chains),
        "direction": losses.direction_loss(atoms, chains, ROWS),
    }[name]
    assert mean_of(found) == pytest.approx({"step": 1.3 * FLOOR, "direction": 0}[name], abs=1e-4)
    bound = chains._replace(follows=torch.ones_like(chains.follows))
    seen = {
        "step": lambda: losses.local_motion_loss(moved, truth, bound),
        "direction": lambda: losses.direction_loss(atoms, bound, torch.arange(LENGTH)),
    }[name]()
    assert mean_of(seen) > mean_of(found) + 0.01


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", ["near", "one point", "nothing exists"])
def test_no_loss_and_no_gradient_is_ever_nan(name: str, shape: str, chains: Chains) -> None:
    guess = guess_near(chains)
    if shape == "one point":
        guess = Rigids(
            torch.eye(3).repeat(2, LENGTH, 1, 1).requires_grad_(), torch.zeros(2, LENGTH, 3).requires_grad_()
        )
    elif shape == "nothing exists":
        chains = Chains(chains.atoms * 0, chains.exists & False, chains.follows & False)
    total, weight = every_loss(guess, chains)[name]
    assert torch.isfinite(total)
    assert weight >= 0
    if total.requires_grad:
        (total / weight.clamp_min(1)).backward()  # type: ignore[no-untyped-call]
        for leaf in guess:
            if leaf.grad is not None:
                assert torch.isfinite(leaf.grad).all()
                assert not leaf.grad[0, 7].any()


@pytest.mark.parametrize("name", LOSSES)
def test_sums_and_weights_of_parts_add_up_to_those_of_the_whole(name: str, chains: Chains) -> None:
    guess = guess_near(chains)
    whole = every_loss(guess, chains)[name]
    parts = [
        every_loss(Rigids(*(part[half] for part in guess)), Chains(*(part[half] for part in chains)))[name]
        for half in (slice(0, 1), slice(1, 2))
    ]
    assert parts[0][1] != parts[1][1]
    for place in (0, 1):
        torch.testing.assert_close(parts[0][place] + parts[1][place], whole[place])
