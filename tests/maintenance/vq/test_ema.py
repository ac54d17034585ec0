"""Moving averages of the codebook, worked out by hand."""

import torch

from foldmint_maintenance.vq import ema
from foldmint_tokenizer.codebook import Codebook


def _codebook() -> Codebook:
    return Codebook(
        embeddings=torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]),
        N=torch.tensor([2.0, 1.0, 0.0]),
        z_avg=torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]]),
    )


def test_statistics_count_hits_and_add_vectors() -> None:
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    hits, sums = ema.batch_statistics(z, torch.tensor([2, 2, 0]), 4)
    assert hits.tolist() == [1, 0, 2, 0]
    assert sums.tolist() == [[10, 20], [0, 0], [4, 6], [0, 0]]


def test_an_update_moves_count_sum_and_vector() -> None:
    hits, sums = torch.tensor([4.0, 0.0, 0.0]), torch.tensor([[8.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    after = ema.ema_update(_codebook(), hits, sums, decay=0.5)
    assert after.N.tolist() == [3.0, 0.5, 0.0]
    assert after.z_avg.tolist() == [[5.0, 2.0], [0.0, 1.0], [0.0, 0.0]]
    torch.testing.assert_close(after.embeddings[0], torch.tensor([5 / 3, 2 / 3]))


def test_a_code_that_is_not_hit_stays_in_place() -> None:
    codebook = _codebook()
    for _ in range(3000):  # until N underflows to zero
        codebook = ema.ema_update(codebook, torch.zeros(3), torch.zeros(3, 2), decay=0.9)
    assert codebook.N.max() < 1e-30
    torch.testing.assert_close(codebook.embeddings, _codebook().embeddings)


def test_codes_are_dead_below_the_threshold_and_not_at_it() -> None:
    assert ema.dead_codes(_codebook(), 1.0).tolist() == [False, False, True]
    assert ema.dead_codes(_codebook(), 1.5).tolist() == [False, True, True]


def test_reinitialization_leaves_live_rows_bit_for_bit_even_beside_nan() -> None:
    before = _codebook()
    vectors = torch.tensor([[torch.nan, torch.inf], [torch.nan, 1.0], [7.0, 8.0]])
    after = ema.reset_codes(before, torch.tensor([False, False, True]), vectors, count=0.25)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[:2].view(torch.int32), new[:2].view(torch.int32))
    assert after.embeddings[2].tolist() == [7, 8]
    assert after.N[2] == 0.25
    assert after.z_avg[2].tolist() == [1.75, 2]


def test_a_reinitialized_vector_outlives_the_next_update() -> None:
    dead = torch.tensor([False, False, True])
    fresh = ema.reset_codes(_codebook(), dead, torch.full((3, 2), 7.0), count=0.25)
    after = ema.ema_update(fresh, torch.zeros(3), torch.zeros(3, 2), decay=0.9)
    torch.testing.assert_close(after.embeddings[2], torch.tensor([7.0, 7.0]))
