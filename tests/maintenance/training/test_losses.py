"""Losses of decoded backbones: what they see, what they do not, and what must not count."""

from collections.abc import Callable, Sequence
from math import log, sqrt

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from foldmint_maintenance.training.chain import losses
from foldmint_maintenance.training.chain.losses import Chains, WeightedSum
from foldmint_tokenizer.decoder import BINNED_LOGITS, PAE_BINS, PLDDT_BINS, Rigids, backbone_atoms
from foldmint_tokenizer.frames import backbone_frames

Built = Callable[[Sequence[tuple[float, float]]], NDArray[np.float32]]

LENGTH = 20
ROWS = torch.tensor([0, 3, 7, 8, 19])
FLOOR = sqrt(1e-3)


@pytest.fixture
def chains(built: Built) -> Chains:
    """Two chains; the first lacks residue 7, the second is broken after residue 11."""
    random = np.random.default_rng(0)
    torsions = [[tuple(random.uniform(-150, 150, 2)) for _ in range(LENGTH)] for _ in range(2)]
    atoms = torch.from_numpy(np.stack([built(chain) for chain in torsions]))
    exists, follows = torch.ones(2, LENGTH, dtype=torch.bool), torch.ones(2, LENGTH - 1, dtype=torch.bool)
    atoms[0, 7], exists[0, 7], follows[0, 6:8] = 0, False, False
    atoms[1, 12:] += torch.tensor([20.0, 5.0, 0.0])
    follows[1, 11] = False
    return Chains(atoms, exists, follows)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _moved(atoms: Tensor) -> Tensor:
    """Atoms turned and carried away."""
    turn = torch.linalg.qr(_random(3, 3).double())[0]
    turn = turn * torch.linalg.det(turn).sign()
    moved: Tensor = (atoms.double() @ turn.T + torch.tensor([5.0, -3.0, 8.0])).float()
    return moved


def _guess(chains: Chains, size: float = 0.5) -> Rigids:
    """Frames near the true ones, as leaves of a graph."""
    near = losses.frames(chains.atoms + size * _random(*chains.atoms.shape, seed=5))
    rotation = torch.where(chains.exists[..., None, None], near.rotation, torch.eye(3))
    return Rigids(rotation.requires_grad_(), near.origin.requires_grad_())


def _every(guess: Rigids, chains: Chains) -> dict[str, WeightedSum]:
    """All losses of a guess, with logits that hang on its place in the batch alone."""
    truth, atoms = losses.frames(chains.atoms), backbone_atoms(guess)
    places = _random(LENGTH, LENGTH, 224, seed=6)[ROWS].expand(len(chains.atoms), -1, -1, -1)
    return {
        "step": losses.local_motion_loss(guess, truth, chains),
        "reach": losses.displacement_loss(guess, truth, chains),
        "distance": losses.distance_loss(atoms, chains, ROWS),
        "direction": losses.direction_loss(atoms, chains, ROWS),
        "binned": losses.binned_loss(places[..., BINNED_LOGITS], chains, ROWS),
        "plddt": losses.plddt_loss(places[:, 0, :, :PLDDT_BINS], atoms, chains),
        "pae": losses.pae_loss(places[..., :PAE_BINS], guess, truth, chains, ROWS),
    }


def _mean(weighed: WeightedSum) -> float:
    return float(weighed[0] / weighed[1])


def _along(count: int) -> Chains:
    """Residues whose nine coordinates lie on the x axis, 1 Å apart."""
    atoms = torch.zeros(1, count, 3, 3)
    atoms[..., 0] = torch.arange(3.0 * count).view(1, count, 3)
    return Chains(atoms, torch.ones(1, count, dtype=torch.bool), torch.ones(1, count - 1, dtype=torch.bool))


def _still(count: int) -> Rigids:
    """Frames without rotation, 3 Å apart."""
    origin = torch.zeros(1, count, 3)
    origin[0, :, 0] = 3 * torch.arange(count)
    return Rigids(torch.eye(3).expand(1, count, 3, 3), origin)


def _turned(rigids: Rigids, residue: int, turn: list[list[float]]) -> Rigids:
    rotation = rigids.rotation.clone()
    rotation[0, residue] = torch.tensor(turn)
    return Rigids(rotation, rigids.origin)


QUARTER = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_frames_are_those_of_the_tokenizer(chains: Chains) -> None:
    for index, atoms in enumerate(chains.atoms.numpy()):
        expected = backbone_frames(np.where(chains.exists[index].numpy()[:, None, None], atoms, np.nan))
        made = losses.frames(chains.atoms[index])
        there = chains.exists[index].numpy()
        np.testing.assert_allclose(made.rotation.numpy()[there], expected.rotation[there], atol=1e-5)
        np.testing.assert_allclose(made.origin.numpy()[there], expected.origin[there], atol=1e-5)
        assert torch.isfinite(made.rotation).all()


def test_nothing_is_lost_by_a_copy_that_is_turned_and_moved(chains: Chains) -> None:
    atoms = _moved(chains.atoms)
    guess, truth = losses.frames(atoms), losses.frames(chains.atoms)
    assert _mean(losses.distance_loss(atoms, chains, ROWS)) == pytest.approx(0, abs=1e-6)
    assert _mean(losses.direction_loss(atoms, chains, ROWS)) == pytest.approx(0, abs=1e-6)
    # These two have a floor, below which an error is rounding.
    assert _mean(losses.local_motion_loss(guess, truth, chains)) == pytest.approx(1.3 * FLOOR, abs=1e-4)
    assert _mean(losses.displacement_loss(guess, truth, chains)) == pytest.approx(log(0.01), abs=1e-3)


def test_a_mirror_image_has_the_distances_and_not_the_directions(chains: Chains) -> None:
    mirrored = chains.atoms * torch.tensor([1.0, 1.0, -1.0])
    assert _mean(losses.distance_loss(mirrored, chains, ROWS)) == pytest.approx(0, abs=1e-6)
    assert _mean(losses.direction_loss(mirrored, chains, ROWS)) > 1
    assert _mean(losses.local_motion_loss(losses.frames(mirrored), losses.frames(chains.atoms), chains)) > 1


def test_a_step_is_told_by_what_it_turns_and_moves() -> None:
    chains, truth = _along(3), _still(3)
    moved = Rigids(truth.rotation, truth.origin + torch.tensor([[[0.0, 0, 0], [0, 0, 0], [3, 4, 0]]]))
    one = FLOOR + 0.3 * sqrt(25 + 1e-3)
    assert _mean(losses.local_motion_loss(moved, truth, chains)) == pytest.approx((1.3 * FLOOR + one) / 2)
    # A quarter turn of the last residue: the Frobenius norm is 2.
    last = _turned(truth, 2, QUARTER)
    turned = sqrt(4 + 1e-3) + 0.3 * FLOOR
    assert _mean(losses.local_motion_loss(last, truth, chains)) == pytest.approx((1.3 * FLOOR + turned) / 2)
    # Of the first residue: seen from it, the second is 3 √2 Å from where it should be.
    first = sqrt(4 + 1e-3) + 0.3 * sqrt(18 + 1e-3)
    assert _mean(losses.local_motion_loss(_turned(truth, 0, QUARTER), truth, chains)) == pytest.approx(
        (first + 1.3 * FLOOR) / 2
    )


def test_reaches_weigh_their_inverse() -> None:
    chains, truth = _along(5), _still(5)
    origin = truth.origin.clone()
    origin[0, 4, 2] += 2
    right, wrong = log(0.01), log(4.01)
    # Of reach 2 there are three pairs, of reach 4 one; each is seen from both ends.
    expected = (2 / 2 * (2 * right + wrong) + 2 / 4 * wrong) / (2 / 2 * 3 + 2 / 4)
    assert _mean(losses.displacement_loss(Rigids(truth.rotation, origin), truth, chains)) == pytest.approx(
        expected, rel=1e-4
    )
    origin = truth.origin.clone()
    origin[0, 1, 2] += 2
    expected = (2 / 2 * (2 * right + wrong) + 2 / 4 * right) / (2 / 2 * 3 + 2 / 4)
    assert _mean(losses.displacement_loss(Rigids(truth.rotation, origin), truth, chains)) == pytest.approx(
        expected, rel=1e-4
    )


def test_distances_count_by_their_square_up_to_a_bound() -> None:
    chains, rows = _along(2), torch.arange(2)
    # Of six atoms in a row, the squared differences of all pairs of places add up to 210.
    assert _mean(losses.distance_loss(2 * chains.atoms, chains, rows)) == pytest.approx(210 / 36)
    assert _mean(losses.distance_loss(7 * chains.atoms, chains, rows)) == pytest.approx(30 * 25 / 36)
    first = losses.distance_loss(2 * chains.atoms, chains, torch.tensor([0]))
    assert float(first[1]) == 18  # three atoms to all six
    assert float(first[0]) == sum((i - j) ** 2 for i in range(3) for j in range(6))


def test_directions_are_all_products_of_six_vectors_up_to_a_bound(chains: Chains) -> None:
    guess = chains.atoms + 0.3 * _random(*chains.atoms.shape)
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
    guess = chains.atoms + 0.8 * _random(*chains.atoms.shape)
    logits = _random(2, LENGTH, PLDDT_BINS, seed=3)
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
    assert _mean(losses.plddt_loss(logits, chains.atoms, chains)) == pytest.approx(0, abs=1e-6)


def test_aligned_errors_are_asked_for_as_seen_from_each_row(chains: Chains) -> None:
    guess, truth = _guess(chains, 3.0), losses.frames(chains.atoms)
    logits = _random(2, len(ROWS), LENGTH, PAE_BINS, seed=3)
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


LOSSES = ["step", "reach", "distance", "direction", "binned", "plddt", "pae"]


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_missing_does_not_count(name: str, chains: Chains) -> None:
    guess = _guess(chains)
    expected = _every(guess, chains)[name]
    origin, rotation = guess.origin.detach().clone(), guess.rotation.detach().clone()
    origin[0, 7] += 50
    rotation[0, 7] = torch.tensor(QUARTER)
    atoms = chains.atoms.clone()
    atoms[0, 7] = _random(3, 3)
    found = _every(Rigids(rotation, origin), chains._replace(atoms=atoms))[name]
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
    assert _mean(found) == pytest.approx({"step": 1.3 * FLOOR, "direction": 0}[name], abs=1e-4)
    bound = chains._replace(follows=torch.ones_like(chains.follows))
    seen = {
        "step": lambda: losses.local_motion_loss(moved, truth, bound),
        "direction": lambda: losses.direction_loss(atoms, bound, torch.arange(LENGTH)),
    }[name]()
    assert _mean(seen) > _mean(found) + 0.01


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", ["near", "one point", "nothing exists"])
def test_no_loss_and_no_gradient_is_ever_nan(name: str, shape: str, chains: Chains) -> None:
    guess = _guess(chains)
    if shape == "one point":
        guess = Rigids(
            torch.eye(3).repeat(2, LENGTH, 1, 1).requires_grad_(), torch.zeros(2, LENGTH, 3).requires_grad_()
        )
    elif shape == "nothing exists":
        chains = Chains(chains.atoms * 0, chains.exists & False, chains.follows & False)
    total, weight = _every(guess, chains)[name]
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
    guess = _guess(chains)
    whole = _every(guess, chains)[name]
    parts = [
        _every(Rigids(*(part[half] for part in guess)), Chains(*(part[half] for part in chains)))[name]
        for half in (slice(0, 1), slice(1, 2))
    ]
    assert parts[0][1] != parts[1][1]
    for place in (0, 1):
        torch.testing.assert_close(parts[0][place] + parts[1][place], whole[place])
