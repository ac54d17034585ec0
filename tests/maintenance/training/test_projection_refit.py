"""A refitted encoder: its vectors are a linear map of the old ones, in which distance is that of weighed windows."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.training.projection_refit import RefitConfig, refitted
from foldmint_tokenizer.encoder import Encoder


@pytest.fixture
def rows(data: PreparedSet) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(part) for part in data.rows(np.arange(60)))


def _vectors(encoder: Encoder, rows: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        z: Tensor = encoder(*rows)
    return z


def _linear(z: Tensor) -> Tensor:
    """Windows (rows, 9, 3, 3) that are a linear map of z."""
    generator = torch.Generator().manual_seed(0)
    turn, shift = (torch.randn(*shape, generator=generator) for shape in ((z.shape[1], 81), (81,)))
    return (z @ turn + shift).view(-1, 9, 3, 3)


def _weighed(windows: Tensor, weights: tuple[float, ...]) -> Tensor:
    place = torch.tensor([weights[abs(i)] for i in range(-4, 5)])
    return (windows * place[:, None, None]).flatten(1)


def test_distances_are_those_of_the_weighed_windows(encoder: Encoder, rows: tuple[Tensor, ...]) -> None:
    z = _vectors(encoder, rows)
    windows, weights = _linear(z), (1.0, 2.0, 0.5, 0.25, 0.0)
    renewed = refitted(encoder, z, windows, RefitConfig(weights=weights, dimensions=8))
    made = _vectors(renewed, rows)
    told = _weighed(windows, weights)
    torch.testing.assert_close(torch.pdist(made), torch.pdist(told), rtol=1e-3, atol=1e-3)
    # Around their mean, along their principal axes, the largest first.
    torch.testing.assert_close(made.mean(0), torch.zeros(8), rtol=0, atol=1e-3)
    spread = made.T @ made
    assert (spread - spread.diagonal().diag()).abs().max() < 1e-3 * spread.max()
    assert (spread.diagonal().diff() < 0).all()


def test_fewer_dimensions_keep_the_most(encoder: Encoder, rows: tuple[Tensor, ...]) -> None:
    z = _vectors(encoder, rows)
    windows = _linear(z) + torch.randn(60, 9, 3, 3, generator=torch.Generator().manual_seed(1))
    config = RefitConfig(weights=(1.0, 1.0, 1.0, 1.0, 1.0), dimensions=3)
    renewed = refitted(encoder, z, windows, config)
    # What a least-squares fit tells of the windows, along its first three principal axes.
    inputs = np.concatenate([z.double().numpy(), np.ones((60, 1))], 1)
    told = inputs @ np.linalg.lstsq(inputs, windows.flatten(1).double().numpy(), rcond=None)[0]
    told -= told.mean(0)
    axes = np.linalg.svd(told, full_matrices=False)[2][:3]
    expected = told @ axes.T
    made = _vectors(renewed, rows).numpy()
    np.testing.assert_allclose(made * np.sign((made * expected).sum(0)), expected, rtol=1e-3, atol=1e-3)
    assert (renewed.config.out, renewed.config.codes, renewed.config.width) == (3, 16, 16)


def test_nothing_but_the_last_layer_changes(encoder: Encoder, rows: tuple[Tensor, ...]) -> None:
    z = _vectors(encoder, rows)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    after = refitted(encoder, z, _linear(z), RefitConfig(dimensions=8)).state_dict()
    for name, value in before.items():
        assert torch.equal(encoder.state_dict()[name], value), name
        assert torch.equal(after[name], value) == (not name.startswith("pre_vq_proj")), name
    with pytest.raises(ValueError, match="9 dimensions cannot be had of vectors of 8"):
        refitted(encoder, z, _linear(z), RefitConfig(dimensions=9))


@pytest.mark.parametrize(
    "wrong", [{"weights": (1.0,)}, {"weights": (0.0,) * 5}, {"weights": (1, 1, 1, 1, -1)}, {"rounds": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"weights are|must be positive"):
        RefitConfig(**wrong)
