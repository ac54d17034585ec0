"""What is compiled of the encoder, against torch's own functions."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from foldmint_tokenizer.kernels.encoder import add_and_norm, gate


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
