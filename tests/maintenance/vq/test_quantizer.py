"""Quantization within a training, worked out by hand."""

import pytest
import torch
from torch import Tensor

from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_maintenance.vq.estimators import Estimator
from foldmint_maintenance.vq.quantizer import Quantizer, attach_gradient, first_codebook, sample_vectors
from foldmint_tokenizer.codebook import Codebook


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _codebook(embeddings: list[list[float]], N: list[float]) -> Codebook:
    vectors, counts = torch.tensor(embeddings), torch.tensor(N)
    return Codebook(vectors, counts, vectors * counts[:, None])


def test_straight_through_is_the_code_with_the_gradient_of_z() -> None:
    z, found, gradient = _random(5, 3).requires_grad_(), _random(5, 3, seed=1), _random(5, 3, seed=2)
    vectors = attach_gradient(z, found, "straight_through")
    torch.testing.assert_close(vectors, found)
    vectors.backward(gradient)  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert torch.equal(z.grad, gradient)


def test_rotation_is_the_code_with_the_gradient_turned_and_scaled_back() -> None:
    z, found, gradient = _random(5, 3).requires_grad_(), _random(5, 3, seed=1), _random(5, 3, seed=2)
    vectors = attach_gradient(z, found, "rotation")
    torch.testing.assert_close(vectors, found)
    vectors.backward(gradient)  # type: ignore[no-untyped-call]
    assert z.grad is not None
    for row in range(5):
        # The rotation in the plane of both, by Rodrigues' formula, which the estimator does not use.
        here, there = (v / v.norm() for v in (z.detach()[row].double(), found[row].double()))
        axis = torch.linalg.cross(here, there)
        sine, cosine = axis.norm(), here @ there
        x, y, w = (axis / sine).tolist()
        skew = torch.tensor([[0, -w, y], [w, 0, -x], [-y, x, 0]], dtype=torch.float64)
        rotation = torch.eye(3, dtype=torch.float64) + sine * skew + (1 - cosine) * skew @ skew
        torch.testing.assert_close(rotation @ here, there)
        motion = rotation * (found[row].norm() / z.detach()[row].norm())
        explicit = z.detach()[row].double().requires_grad_()
        (motion @ explicit).backward(gradient[row].double())
        assert explicit.grad is not None
        torch.testing.assert_close(z.grad[row].double(), explicit.grad, rtol=1e-4, atol=1e-5)


def test_rotation_keeps_the_angle_of_gradient_and_vector_in_any_dimension() -> None:
    z, found, gradient = _random(50, 24).requires_grad_(), _random(50, 24, seed=1), _random(50, 24, seed=2)
    attach_gradient(z, found, "rotation").backward(gradient)  # type: ignore[no-untyped-call]
    assert z.grad is not None
    before = torch.cosine_similarity(gradient, found, dim=1)
    after = torch.cosine_similarity(z.grad, z.detach(), dim=1)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    length = gradient.norm(dim=1) * found.norm(dim=1) / z.detach().norm(dim=1)
    torch.testing.assert_close(z.grad.norm(dim=1), length, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_vectors_of_no_length_or_opposite_to_their_code_make_no_nan(estimator: Estimator) -> None:
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    found = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    vectors = attach_gradient(z, found, estimator)
    vectors.sum().backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert torch.isfinite(vectors).all()
    assert torch.isfinite(z.grad).all()


def test_drawn_vectors_come_at_most_once_where_there_are_enough() -> None:
    z = torch.arange(20.0)[:, None]
    some = sample_vectors(z, 20, seed=1, step=2)[:, 0]
    assert some.sort().values.tolist() == list(range(20))
    assert some.tolist() != list(range(20))
    assert len(set(sample_vectors(z, 8, seed=1, step=2)[:, 0].tolist())) == 8
    assert torch.equal(sample_vectors(z, 8, 1, 2), sample_vectors(z, 8, 1, 2))
    assert not torch.equal(sample_vectors(z, 8, 1, 2), sample_vectors(z, 8, 1, 3))
    assert not torch.equal(sample_vectors(z, 8, 1, 2), sample_vectors(z, 8, 2, 2))
    # Too few: each as often as any other, but for one.
    counts = torch.bincount(sample_vectors(z, 50, seed=1, step=2)[:, 0].long(), minlength=20)
    assert (int(counts.min()), int(counts.max())) == (2, 3)


def test_a_first_codebook_is_a_sample_without_k_means() -> None:
    z = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    made = first_codebook(z, 2, rounds=0, seed=0, step=0, batch=8)
    assert set(made.embeddings[:, 0].tolist()) < {0.0, 1.0, 10.0, 11.0}
    nearest = (z - made.embeddings[:, 0]).abs().argmin(1)
    # Hits of a batch of eight, where four vectors were seen.
    assert made.N.tolist() == (2 * torch.bincount(nearest, minlength=2)).tolist()
    torch.testing.assert_close(made.z_avg, made.embeddings * made.N[:, None])


def test_a_first_codebook_is_the_means_of_clusters_with_k_means() -> None:
    z = torch.tensor([[0.0], [1.0], [2.0], [10.0], [12.0]])
    for seed in range(5):  # whichever two it begins with
        made = first_codebook(z, 2, rounds=10, seed=seed, step=0, batch=10)
        assert sorted(zip(made.embeddings[:, 0].tolist(), made.N.tolist(), strict=True)) == [(1.0, 6.0), (11.0, 4.0)]
        torch.testing.assert_close(made.z_avg, made.embeddings * made.N[:, None])


def test_codes_are_the_nearest_and_figures_are_means() -> None:
    codebook = _codebook([[0.0, 0.0], [4.0, 0.0]], [1.0, 1.0])
    z = torch.tensor([[0.0, 1.0], [3.0, 0.0], [4.0, 2.0], [4.0, 0.0]])
    done = Quantizer(decay=0.5, dead_share=0.1, seed=0).quantize(z, codebook, 0, ALONE)
    assert done.vectors.tolist() == [[0, 0], [4, 0], [4, 0], [4, 0]]
    assert float(done.distance) == pytest.approx((1 + 1 + 2 + 0) / 4)
    assert float(done.commitment) == pytest.approx((1 + 1 + 4 + 0) / 8)  # a dimension
    assert done.replaced == 0
    assert done.codebook.N.tolist() == [1.0, 2.0]
    assert done.codebook.z_avg.tolist() == [[0.0, 0.5], [7.5, 1.0]]
    torch.testing.assert_close(done.codebook.embeddings, torch.tensor([[0.0, 0.5], [3.75, 0.5]]))
    # Another decay than usual, which settling asks for.
    kept = Quantizer(decay=0.5, dead_share=0.1, seed=0).quantize(z, codebook, 0, ALONE, decay=1.0)
    torch.testing.assert_close(kept.codebook, codebook)


def test_commitment_pulls_towards_the_code() -> None:
    codebook = _codebook([[0.0, 0.0]], [1.0])
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    Quantizer(0.5, 0.1, 0).quantize(z, codebook, 0, ALONE).commitment.backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    torch.testing.assert_close(z.grad, z.detach() / 2)


def test_dead_codes_are_replaced_from_the_batch_and_live_rows_stay_bit_for_bit() -> None:
    codebook = _codebook([[0.1, 0.7], [50.0, 50.0], [3.3, 0.9], [-60.0, 1.0]], [3.0, 0.01, 4.0, 0.3])
    z = torch.tensor([[0.2, 0.6], [3.1, 1.0], [0.3, 0.5], [2.9, 1.1], [3.5, 0.7], [0.0, 0.4]])
    quantizer = Quantizer(decay=0.9, dead_share=0.1, seed=3)
    kept = quantizer.quantize(z, codebook, 7, ALONE, reset_dead=False)
    done = quantizer.quantize(z, codebook, 7, ALONE)
    assert (kept.replaced, done.replaced) == (0, 1)
    live = [0, 2, 3]  # 0.9 * 0.3 is above a tenth of 6 / 4
    for held, new in zip(kept.codebook, done.codebook, strict=True):
        assert torch.equal(held[live].view(torch.int32), new[live].view(torch.int32))
    fresh = done.codebook.embeddings[1]
    assert any(torch.equal(fresh, row) for row in z)
    assert float(done.codebook.N[1]) == 1.5
    assert torch.equal(done.codebook.z_avg[1], fresh * 1.5)
    assert torch.equal(done.vectors, kept.vectors)
    # What replaces it hangs on seed and step alone, and is another at another step.
    steps = [quantizer.quantize(z, codebook, step, ALONE).codebook.embeddings[1] for step in range(10)]
    assert torch.equal(steps[7], fresh)
    assert len({tuple(row.tolist()) for row in steps}) > 1


def test_there_is_no_other_estimator() -> None:
    with pytest.raises(ValueError, match="straight_through or rotation, not 'none'"):
        Quantizer(0.5, 0.1, 0, "none")  # type: ignore[arg-type]
