"""The chains of the tests of losses."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from maintenance.training.chain.loss_cases import (
    LENGTH,
)
from numpy.typing import NDArray

from foldmint_maintenance.training.chain.losses import Chains

Built = Callable[[Sequence[tuple[float, float]]], NDArray[np.float32]]


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
