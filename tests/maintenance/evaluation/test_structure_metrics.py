"""How near a reconstruction is to the truth, against cases worked out by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.evaluation import structure_metrics
from foldmint_maintenance.evaluation.structure_metrics import backbone_rmsd, lddt_ca, superposed, tm_score


@pytest.fixture
def truth(records: list[Record]) -> NDArray[np.float32]:
    """A backbone of 55 residues."""
    return records[5].coordinates


def _moved(points: NDArray[np.floating]) -> NDArray[np.float64]:
    rotation = Rotation.random(1, np.random.default_rng(0)).as_matrix()[0]
    moved: NDArray[np.float64] = points @ rotation.T + [30.0, -7.0, 11.0]
    return moved


def _line(*places: float) -> NDArray[np.float64]:
    return np.array([[place, 0, 0] for place in places])


def _by_formula(truth: NDArray[np.floating], guess: NDArray[np.floating], d0: float) -> float:
    """The TM-score of the positions as they are."""
    return float((1 / (1 + ((truth - guess) ** 2).sum(1) / d0**2)).mean())


def test_rmsd_of_a_copy_that_was_turned_and_moved_is_zero(truth: NDArray[np.float32]) -> None:
    assert backbone_rmsd(truth, _moved(truth)) == pytest.approx(0, abs=1e-5)


def test_rmsd_of_a_mirror_image_is_not(truth: NDArray[np.float32]) -> None:
    assert backbone_rmsd(truth, truth * np.array([1, 1, -1])) > 2


def test_rmsd_counts_every_atom() -> None:
    narrow, wide = _line(-1, 0, 1)[None], _line(-2, 0, 2)[None]
    assert backbone_rmsd(narrow, wide) == pytest.approx(np.sqrt(2 / 3))


def test_superposition_brings_a_copy_back_and_is_that_of_the_rmsd(truth: NDArray[np.float32]) -> None:
    atoms = truth.reshape(-1, 3)
    assert superposed(_moved(atoms), atoms) == pytest.approx(atoms, abs=1e-4)
    for other in (atoms * np.array([1, 1, -1]), atoms + np.random.default_rng(1).normal(0, 2, atoms.shape)):
        apart = superposed(_moved(other), atoms) - atoms
        rmsd = backbone_rmsd(truth, other.reshape(-1, 3, 3))
        assert np.sqrt((apart**2).sum(1).mean()) == pytest.approx(rmsd, abs=1e-4)
        assert rmsd > 1


def test_lddt_of_a_copy_is_one(truth: NDArray[np.float32]) -> None:
    residues, chain = lddt_ca(truth[:, 1], _moved(truth[:, 1]))
    assert chain == 1
    assert residues.tolist() == [1] * 55


def test_lddt_by_hand() -> None:
    # Less than 15 Å apart: 0-1, 0-2, 1-2 are kept; 1-3 and 2-3 are 3 Å off, which one threshold of four allows.
    residues, chain = lddt_ca(_line(0, 5, 12, 19), _line(0, 5, 12, 22))
    assert residues == pytest.approx([1, 2.25 / 3, 2.25 / 3, 0.25])
    assert chain == pytest.approx(3.5 / 5)


@pytest.mark.parametrize(
    ("off", "score"),
    [(0.4, 1.0), (0.5, 0.75), (0.9, 0.75), (1.0, 0.5), (1.9, 0.5), (2.0, 0.25), (3.9, 0.25), (4.0, 0.0), (50, 0.0)],
)
def test_lddt_of_a_known_displacement(off: float, score: float) -> None:
    assert lddt_ca(_line(0, 8), _line(0, 8 + off)).chain == score


def test_lddt_looks_no_farther_than_15_angstroms() -> None:
    assert lddt_ca(_line(0, 14.9), _line(0, 30)).chain == 0
    residues, chain = lddt_ca(_line(0, 15), _line(0, 15))
    assert np.isnan([*residues, chain]).all()
    residues, chain = lddt_ca(_line(0, 5, 90), _line(0, 5, 20))
    assert (residues[:2].tolist(), bool(np.isnan(residues[2])), chain) == ([1, 1], True, 1)


def test_tm_score_of_a_copy_is_one(truth: NDArray[np.float32]) -> None:
    assert tm_score(truth[:, 1], truth[:, 1]) == pytest.approx(1)
    assert tm_score(truth[:, 1], _moved(truth[:, 1])) == pytest.approx(1)


def test_tm_score_of_a_mirror_image_is_small(truth: NDArray[np.float32]) -> None:
    assert tm_score(truth[:, 1], truth[:, 1] * np.array([1, 1, -1])) < 0.6


def test_tm_score_is_the_share_of_what_lies_right_where_the_rest_is_far_away(truth: NDArray[np.float32]) -> None:
    guess = truth[:40, 1].copy()
    guess[30:] += np.random.default_rng(0).normal(0, 3000, (10, 3))
    assert tm_score(truth[:40, 1], guess) == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize(("length", "d0"), [(20, 0.5), (55, 1.24 * 40 ** (1 / 3) - 1.8), (160, 4.66)])
def test_tm_score_by_the_formula(length: int, d0: float) -> None:
    # Two residues in the middle lie d0 away, either way, and count a half each; the others, as they are, count one.
    truth = np.random.default_rng(0).normal(0, 15, (length, 3))
    guess = truth.copy()
    guess[length // 2] += [d0, 0, 0]
    guess[length // 2 + 1] -= [d0, 0, 0]
    assert tm_score(truth, _moved(guess)) == pytest.approx((length - 1) / length, abs=2e-4 * d0)


def test_tm_score_is_that_of_the_best_superposition(truth: NDArray[np.float32]) -> None:
    """Not of the one of least RMSD: a hinge costs half of the chain there, and little here."""
    bent = truth[:, 1].astype(np.float64)
    bent[35:] = (bent[35:] - bent[35]) @ Rotation.from_euler("x", 100, degrees=True).as_matrix() + bent[35]
    d0 = 1.24 * 40 ** (1 / 3) - 1.8
    least_rmsd = _by_formula(truth[:, 1], superposed(bent, truth[:, 1]), d0)
    score = tm_score(truth[:, 1], bent)
    assert score >= 35 / 55
    assert score > least_rmsd + 0.1


def test_tm_score_pairs_residues_by_their_place(truth: NDArray[np.float32]) -> None:
    """A copy shifted by one residue is wrong everywhere, though TM-align would find the shift and give almost 1."""
    import tmtools

    first, second = truth[:-1, 1].astype(np.float64), truth[1:, 1].astype(np.float64)
    letters = "A" * len(first)
    assert tmtools.tm_align(first, second, letters, letters).tm_norm_chain2 > 0.95
    assert tm_score(second, first) < 0.6


def test_one_residue_is_enough() -> None:
    one = np.arange(9.0).reshape(1, 3, 3) ** 2
    assert backbone_rmsd(one, _moved(one)) == pytest.approx(0, abs=1e-5)
    assert tm_score(one[:, 1], _moved(one[:, 1])) == pytest.approx(1)
    assert np.isnan(lddt_ca(one[:, 1], one[:, 1]).chain)
    assert structure_metrics.superposed(one[:, 1] + 5, one[:, 1]) == pytest.approx(one[:, 1])
