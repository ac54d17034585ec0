"""Dead codes are found, moved and settled; live ones stay bit for bit."""

import numpy as np
import pytest
import torch
from torch import Tensor

from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_maintenance.vq import dead_code_reset
from foldmint_maintenance.vq.dead_code_reset import Measure, Strategy
from foldmint_tokenizer.codebook import Codebook, nearest_code


def _codebook(vectors: list[list[float]], counts: list[float]) -> Codebook:
    embeddings, N = torch.tensor(vectors), torch.tensor(counts)
    return Codebook(embeddings, N, embeddings * N[:, None])


@pytest.fixture
def clouds() -> Tensor:
    """Vectors (600, 3) around six places."""
    random = torch.Generator().manual_seed(0)
    centers = torch.eye(6)[:, :3] * 10 + torch.arange(6)[:, None] * 5.0
    return (centers[:, None] + 0.1 * torch.randn(6, 100, 3, generator=random)).flatten(0, 1)


def test_dead_by_count_and_by_frequency() -> None:
    counts = torch.tensor([0.0, 1.0, 999.0])
    # In a step of 2000 residues, 0, 2 and 1998 hits.
    found = dead_code_reset.find_dead_codes(counts, step=2000, exposure=300.0, threshold=1.0, measure="count")
    assert found.values.tolist() == pytest.approx([0, 2, 1998])
    assert found.dead.tolist() == [True, False, False]
    shares = dead_code_reset.find_dead_codes(counts, step=2000, exposure=300.0, threshold=0.002, measure="frequency")
    assert shares.values.tolist() == pytest.approx([0, 0.001, 0.999])
    assert shares.dead.tolist() == [True, True, False]


def test_the_published_statistics_have_no_dead_code_at_the_published_threshold() -> None:
    counts = torch.full((4096,), 64.0)
    counts[0], counts[1] = 0.0005, 3376.0
    step = float(counts.sum())
    dead = [
        int(dead_code_reset.find_dead_codes(counts, step, 64.0, threshold, "count").dead.sum())
        for threshold in (1e-5, 1e-3, 100)
    ]
    assert dead == [0, 1, 4095]


def test_batch_draws_each_vector_once(clouds: Tensor) -> None:
    drawn = dead_code_reset.sample_vectors(clouds, clouds[:0], 600, "batch", seed=3)
    assert torch.equal(drawn.sort(0).values, clouds.sort(0).values)
    assert not torch.equal(drawn, dead_code_reset.sample_vectors(clouds, clouds[:0], 600, "batch", seed=4))


def test_kmeans_draws_by_squared_distance() -> None:
    """One live code at 0; vectors at 0, 1 and 2: the chances are 0, 1/5 and 4/5."""
    z, live = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0]])
    drawn = [float(dead_code_reset.sample_vectors(z, live, 1, "kmeans++", seed)) for seed in range(2000)]
    assert drawn.count(0.0) == 0
    # Four standard deviations of a binomial of 2000 tries.
    assert abs(drawn.count(2.0) - 1600) < 4 * np.sqrt(2000 * 0.16)


def test_kmeans_goes_where_no_code_is(clouds: Tensor) -> None:
    live = clouds[::100][:3]  # of three places of six
    drawn = dead_code_reset.sample_vectors(clouds, live, 3, "kmeans++", seed=0)
    nearest = torch.cdist(drawn, clouds[::100]).argmin(1)
    assert sorted(nearest.tolist()) == [3, 4, 5]


def test_kmeans_draws_even_where_all_is_met() -> None:
    z = torch.ones(4, 2)
    assert torch.equal(dead_code_reset.sample_vectors(z, z[:1], 3, "kmeans++", seed=0), torch.ones(3, 2))
    assert torch.equal(dead_code_reset.sample_vectors(z, z[:0], 3, "kmeans++", seed=0), torch.ones(3, 2))


@pytest.mark.parametrize("strategy", ["batch", "kmeans++"])
@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_live_rows_stay_bit_for_bit(strategy: Strategy, rounds: int, clouds: Tensor) -> None:
    vectors = torch.cat([clouds[::150] + 0.05, torch.full((2, 3), 1e4)])
    before = Codebook(vectors, torch.rand(6) + 1, vectors * 0.7)
    dead = torch.tensor([False, True, False, False, True, True])
    after = dead_code_reset.reset_dead_codes(before, dead, clouds, strategy, rounds, 0, ALONE)
    for name in Codebook._fields:
        was, now = getattr(before, name), getattr(after, name)
        assert torch.equal(was[~dead], now[~dead]), name
        assert torch.isfinite(now).all()
    # Vector, N and sum agree, so that the next update does not undo them.
    torch.testing.assert_close(after.z_avg[dead], after.embeddings[dead] * after.N[dead, None])
    codes, _ = nearest_code(clouds, after.embeddings)
    assert torch.bincount(codes, minlength=6)[dead].min() > 0


def test_replaced_codes_settle_in_the_mean_of_their_residues() -> None:
    z = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    before = _codebook([[0.5], [99.0]], [8.0, 0.0])
    after = dead_code_reset.reset_dead_codes(before, torch.tensor([False, True]), z, "kmeans++", 3, 0, ALONE)
    assert after.embeddings.tolist() == [[0.5], [11.0]]
    # The codebook counts for 8 residues a step: 2 of 4 residues are 4 of 8.
    assert after.N.tolist() == [8.0, 4.0]
    assert after.z_avg[1].tolist() == [44.0]


def test_without_rounds_a_code_is_where_a_vector_is(clouds: Tensor) -> None:
    before = _codebook([[0.0, 0, 0], [1e4, 0, 0]], [5.0, 0.0])
    after = dead_code_reset.reset_dead_codes(before, torch.tensor([False, True]), clouds, "batch", 0, 0, ALONE)
    assert (clouds == after.embeddings[1]).all(1).any()


def test_without_dead_codes_nothing_changes(clouds: Tensor) -> None:
    before = _codebook([[0.0, 0, 0], [9.0, 9, 9]], [5.0, 1.0])
    assert (
        dead_code_reset.reset_dead_codes(before, torch.zeros(2, dtype=torch.bool), clouds, "batch", 5, 0, ALONE)
        is before
    )


def test_fine_tuning_moves_all_codes_to_their_means(clouds: Tensor) -> None:
    centers = clouds.view(6, 100, 3).mean(1)
    before = Codebook(centers + 0.3, torch.full((6,), 50.0), (centers + 0.3) * 50)
    after = dead_code_reset.finetune(before, clouds, 300, 200, 0.95, 0, ALONE)
    assert (after.embeddings - centers).norm(dim=1).max() < 0.05
    # N keeps its measure: hits in 300 residues.
    assert float(after.N.sum()) == pytest.approx(300, rel=1e-3)


@pytest.mark.parametrize(("name", "choices"), [("strategy", Strategy), ("measure", Measure)])
def test_other_choices_are_refused(name: str, choices: object) -> None:
    with pytest.raises(ValueError, match=f"{name} is .* not 'other'"):
        dead_code_reset.check_choice(name, "other", choices)
