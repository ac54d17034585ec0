"""What is compiled of the encoder, against torch's own functions."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.kernels.encoder import add_and_norm, gate
from foldmint_tokenizer.kernels.quantization import nearest_codes


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 1e3])
def test_gates(size: float) -> None:
    torch.manual_seed(0)
    up, bias = torch.randn(7, 2, 48) * size, torch.randn(2, 48)
    x, value = (up + bias).double().unbind(1)
    found = up.clone()
    gate(found.view(-1).numpy(), bias.view(-1).numpy())
    assert torch.allclose(found[:, 0].double(), F.silu(x) * value, rtol=2e-6, atol=1e-28)


def test_a_gate_that_is_not_a_number() -> None:
    up = torch.zeros(1, 2, 16)
    up[0, 0, 3] = up[0, 1, 7] = torch.nan
    gate(up.view(-1).numpy(), np.zeros(32, np.float32))
    assert torch.isnan(up[0, 0]).nonzero().flatten().tolist() == [3, 7]


@pytest.mark.parametrize("width", [1, 48, 520])
def test_norms(width: int) -> None:
    torch.manual_seed(0)
    x, bias = 10 * torch.randn(9, width) + 3, torch.randn(width)
    added, normed = x.clone(), torch.empty_like(x)
    add_and_norm(added.numpy(), bias.numpy(), 1e-5, normed.numpy())
    assert torch.equal(added, x + bias)
    assert torch.allclose(normed.double(), F.layer_norm((x + bias).double(), (width,), eps=1e-5), atol=2e-6)


def found_codes(z: torch.Tensor, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    codes, distances = np.empty(len(z), np.int64), np.empty(len(z), np.float32)
    nearest_codes(z.numpy(), embeddings.numpy(), codes, distances)
    return torch.from_numpy(codes), torch.from_numpy(distances)


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 129])
@pytest.mark.parametrize(("codes", "out"), [(1, 4), (15, 5), (4096, 16), (100, 128)])
def test_nearest_codes(rows: int, codes: int, out: int) -> None:
    torch.manual_seed(rows)
    z, embeddings = torch.randn(rows, out), torch.randn(codes, out)
    expected, expected_distances = nearest_code(z, embeddings)
    found, distances = found_codes(z, embeddings)
    assert torch.equal(found, expected)
    assert torch.allclose(distances, expected_distances, atol=1e-5)


def test_the_first_of_equal_codes() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(20, 16).repeat(5, 1)[torch.randperm(100)]
    first = [(embeddings == row).all(1).nonzero()[0].item() for row in embeddings]
    assert found_codes(embeddings, embeddings)[0].tolist() == first


def test_vectors_that_are_not_finite_are_at_no_finite_distance() -> None:
    torch.manual_seed(0)
    z, embeddings = torch.randn(6, 16), torch.randn(40, 16)
    expected = found_codes(z, embeddings)[0]
    z[1, 5], z[2, 0], z[4, 3] = torch.nan, torch.inf, -torch.inf
    codes, distances = found_codes(z, embeddings)
    assert torch.isfinite(distances).tolist() == [True, False, False, True, False, True]
    assert codes[[0, 3, 5]].equal(expected[[0, 3, 5]])
    assert ((codes >= 0) & (codes < 40)).all()
