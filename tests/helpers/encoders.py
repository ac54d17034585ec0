"""Encoders of random weights, and the plain encoder's results to compare with."""

import torch
from torch import Tensor

from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.neighborhoods import Neighborhoods
from foldmint_tokenizer.sizes import ModelConfig

CONFIGS = {
    "small": ModelConfig(width=64, heads=4, layers=2, out=16),
    "one block": ModelConfig(width=64, heads=4, layers=1, out=16),
    "three blocks": ModelConfig(width=48, heads=3, layers=3, out=8),
    "more heads than fit": ModelConfig(width=32, heads=70, layers=2, out=8),
    "wide": ModelConfig(width=520, heads=5, layers=2, out=8),
}


def encoder(config: ModelConfig) -> Encoder:
    """Random weights that leave nothing at zero or one, where a mistake would not show."""
    torch.manual_seed(0)
    made = Encoder(config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "scale_per_head" in name or "embedding" in name:
                parameter.normal_()
            elif "norm" in name or parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) / 4)
    return made


def plain(of: Encoder, rows: Neighborhoods) -> Tensor:
    with torch.no_grad():
        z: Tensor = of(*(torch.from_numpy(column) for column in rows))
        return z


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 2e-5 * float(expected.abs().max())
