"""Figures of the codes' use, and how far two countings are apart, on counts small enough to work out by hand."""

import json

import numpy as np
import pytest

from foldmint.usage import perplexity
from foldmint_maintenance.usage.statistics import (
    STEP_RESIDUES,
    CodeCounts,
    drift,
    figures,
    gini,
    jensen_shannon,
    per_step,
    psi,
    psi_by_chance,
)


def hits(*counts: float, version: str | None = "000001") -> CodeCounts:
    return CodeCounts(np.array(counts, np.float64), int(sum(counts)), version, "hits")


def averages(*counts: float, version: str | None = "000001") -> CodeCounts:
    return CodeCounts(np.array(counts, np.float64), None, version, "averages")


def test_figures_of_moving_averages_are_of_them_as_they_are() -> None:
    told = figures(averages(0, 1, 2, 5, 1e-6), step_residues=8)
    assert (told.codes, told.residues, told.residues_a_code) == (5, None, None)
    assert told.total == pytest.approx(8)
    assert told.mean == pytest.approx(1.6)
    # Of the population: the mean square is 30 / 5, less 1.6 squared.
    assert told.std == pytest.approx((6 - 2.56) ** 0.5)
    assert told.quartiles == pytest.approx((1e-6, 1, 2))
    assert (told.min, told.max, told.never_hit, told.dead, told.utilization) == (0, 5, 1, 2, 0.8)
    assert [(below.threshold, below.codes) for below in told.below] == [
        *((1e-4, 2), (1e-3, 2), (1e-2, 2), (0.1, 2)),
        (1.0, 2),
    ]
    assert told.below[3].share_of_mean == pytest.approx(0.1 / 1.6)
    assert figures(averages(0, 1, 2, 5, 1e-6), dead_threshold=1.5, step_residues=8).dead == 3
    assert told.notes == ()
    (note,) = figures(averages(1, 1)).notes
    assert "steps of about 2 residues" in note
    plain = figures([0.0, 1.0, 2.0])
    assert (plain.mean, plain.never_hit, plain.version) == (1, 1, None)


def test_hits_are_scaled_to_a_step() -> None:
    told = figures(hits(0, 0, 10, 30), step_residues=400)
    assert (told.total, told.residues, told.residues_a_code, told.step_residues) == (40, 40, 10, 400)
    assert (told.mean, told.min, told.max, told.never_hit, told.dead) == (100, 0, 300, 2, 2)
    assert told.quartiles == pytest.approx((0, 50, 150))
    assert [below.codes for below in told.below] == [2] * 5
    (note,) = told.notes
    assert "one hit is an N of 10; N of a code never hit is below 30" in note
    assert figures(hits(0, 0, 10, 30)).mean == STEP_RESIDUES / 4


def test_without_exposure_no_code_is_called_dead() -> None:
    told = figures(hits(0, 0, 9, 30))
    assert (told.never_hit, told.dead) == (2, None)
    assert [below.codes for below in told.below] == [None] * 5
    (note,) = told.notes
    assert note == "dead codes are not reported: 9.75 residues a code were counted, 10 are needed"


def test_nothing_was_counted() -> None:
    told = figures(hits(0, 0))
    assert (told.dead, told.perplexity, told.gini, told.utilization, told.below[0].share_of_mean) == (
        *(None, None, None),
        *(0, None),
    )
    assert "all counts are 0" in told.notes[-1]
    assert figures(averages(0, 0)).dead == 2


def test_json_is_json() -> None:
    told = json.loads(json.dumps(figures(hits(0, 40)).as_json(), allow_nan=False))
    assert list(told) == [
        *("source", "version", "codes", "total", "residues", "residues_a_code", "step_residues"),
        *("mean", "std", "quartiles", "min", "max", "never_hit", "dead", "dead_threshold", "below"),
        *("perplexity", "utilization", "gini", "notes"),
    ]
    assert told["below"][0] == {"threshold": 1e-4, "share_of_mean": 1e-4 / (STEP_RESIDUES / 2), "codes": 1}


def test_perplexity() -> None:
    assert perplexity([5, 5, 5, 0]) == pytest.approx(3)
    assert perplexity([1, 3]) == pytest.approx(4 / 3**0.75)


def test_gini() -> None:
    assert gini([7, 7, 7]) == pytest.approx(0)
    assert gini([0, 0, 0, 9]) == pytest.approx(0.75)
    # Differences of 1, 2, 3, 4: three of 1, two of 2, one of 3, each twice among 16 pairs; half of 20/16 by 2.5.
    assert gini([4, 2, 1, 3]) == pytest.approx(0.25)


def test_the_stability_index() -> None:
    # Shares 3.5/5 and 1.5/5 against 1.5/5 and 3.5/5.
    assert psi([3, 1], [1, 3]) == pytest.approx(0.8 * np.log(7 / 3))
    # A code without a hit: 4.5/5 and 0.5/5 against a half each.
    assert psi([4, 0], [2, 2]) == psi([2, 2], [4, 0]) == pytest.approx(0.4 * np.log(9))
    assert psi([5, 0, 7], [5, 0, 7]) == 0
    # Twice as many residues of the same shares are nearly the same; not quite, by what is added.
    assert psi([400, 100], [800, 200]) == pytest.approx(0, abs=1e-5)


def test_the_jensen_shannon_divergence() -> None:
    assert jensen_shannon([3, 0], [0, 9]) == 1
    assert jensen_shannon([3, 1], [30, 10]) == pytest.approx(0, abs=1e-12)
    # Halves against all: the middle is 3/4 and 1/4.
    by_hand = 0.5 * (0.5 * np.log2(2 / 3) + 0.5 * np.log2(2)) + 0.5 * np.log2(4 / 3)
    assert jensen_shannon([1, 1], [1, 0]) == jensen_shannon([1, 0], [1, 1]) == pytest.approx(by_hand)


def test_what_chance_does_to_the_stability_index() -> None:
    random = np.random.default_rng(0)
    share = random.dirichlet(np.full(200, 5.0))
    drawn = [psi(random.multinomial(20_000, share), random.multinomial(60_000, share)) for _ in range(400)]
    # 199 × (1/20,000 + 1/60,000)
    assert psi_by_chance(200, 20_000, 60_000) == pytest.approx(0.0132667, rel=1e-5)
    assert np.mean(drawn) == pytest.approx(psi_by_chance(200, 20_000, 60_000), rel=0.03)
    assert 0.91 < np.mean(np.array(drawn) < psi_by_chance(200, 20_000, 60_000, 0.95)) < 0.99


def test_drift() -> None:
    told = drift(hits(30, 10), hits(10, 30))
    assert (told.source, told.version, told.notes) == ("hits", "000001", ())
    assert told.psi == psi([30, 10], [10, 30])
    assert told.psi_by_chance == pytest.approx(1 / 40 + 1 / 40)
    assert told.psi_by_chance_95 == pytest.approx(3.841459 * 0.05)
    assert told.jensen_shannon_bits == jensen_shannon([30, 10], [10, 30])
    other = drift(hits(3, 1, version="000002"), averages(1, 1))
    assert "codebook 000002 is compared with 000001" in other.notes[0]
    assert "no number of residues" in other.notes[1]
    assert "fewer than 10 residues a code" in other.notes[2]
    assert other.psi_by_chance is None
    # Moving averages count as a step of ESM's, whatever step they are of.
    assert drift(averages(3, 1), averages(30, 30)).psi == pytest.approx(0.25 * np.log(3), rel=1e-4)
    assert json.loads(json.dumps(told.as_json(), allow_nan=False))["notes"] == []


def test_a_step_for_moving_averages() -> None:
    assert per_step(averages(1, 3), 8).tolist() == [1, 3]
    assert per_step(averages(1, 3), 8, moving_averages=True).tolist() == [2, 6]
    assert per_step(hits(10, 30), 8).tolist() == [2, 6]


@pytest.mark.parametrize("counts", [[], [[1.0, 2.0]], [1.0, -1.0], [1.0, float("nan")], [float("inf")]])
def test_counts_that_are_none(counts: list[float]) -> None:
    for call in (figures, gini, lambda bad: psi(bad, [1, 2]), lambda bad: jensen_shannon([1, 2], bad)):
        with pytest.raises(ValueError, match="counts"):
            call(counts)


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="2 codes cannot be compared with 3"):
        psi([1, 2], [1, 2, 3])
    for call in (gini, lambda zero: psi(zero, [1, 2]), lambda zero: jensen_shannon([1, 2], zero)):
        with pytest.raises(ValueError, match="all counts are 0"):
            call([0, 0])
    for threshold in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="dead_threshold"):
            figures(hits(1, 2), dead_threshold=threshold)
    with pytest.raises(ValueError, match="step_residues"):
        figures(hits(1, 2), step_residues=0)
