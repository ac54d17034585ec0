"""The local objective: predict the backbone around a residue, in its frame, from its vector.

It needs no decoder of whole chains and trains on two cores. The predictor is discarded after training.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foldmint_maintenance.datasets.fragments import REACH, WINDOW, Fragments
from foldmint_tokenizer.neighborhoods import OFFSET_LIMIT, Neighborhoods

CONTACTS = 6
# Å; the loss is quadratic for errors well below it and linear for larger ones, so that outliers do not dominate.
_SOFT = 1.0


class Targets(NamedTuple):
    """Prediction targets in the row's frame, Å.

    window: (rows, 9, 3, 3) N, CA, C; window_exists: (rows, 9); contacts: (rows, 6, 3) the nearest CA beyond the
    window; contacts_exist: (rows, 6).
    """

    window: Tensor
    window_exists: Tensor
    contacts: Tensor
    contacts_exist: Tensor


def targets(windows: Fragments, rows: Neighborhoods) -> Targets:
    """Targets of rows and their fragments."""
    distant = rows.exists & (np.abs(rows.offset - (OFFSET_LIMIT + 1)) > REACH)
    # A stable sort puts the distant neighbors first and leaves them in order of distance.
    first = np.argsort(~distant, axis=1, kind="stable")[:, :CONTACTS]
    contacts: NDArray[np.float32] = np.take_along_axis(rows.origin, first[..., None], 1)
    return Targets(
        torch.from_numpy(windows.positions),
        torch.from_numpy(windows.exists),
        torch.from_numpy(contacts),
        torch.from_numpy(np.take_along_axis(distant, first, 1)),
    )


class LocalPredictor(nn.Module):
    """Predicts a backbone fragment and contacts from a vector.

    The fragment is linear in the first dimensions of the vector, through the principal components of real fragments,
    which are orthonormal: distances between vectors are distances between fragments, in Å, and the nearest code is the
    nearest fragment. The contacts are predicted from the whole vector by a small network.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, out: int, hidden: int = 256) -> None:
        super().__init__()
        components = min(out * 3 // 4, WINDOW * 9)
        self.register_buffer("mean", torch.zeros(WINDOW * 9))
        self.register_buffer("basis", torch.zeros(components, WINDOW * 9))
        self.contacts = nn.Sequential(nn.Linear(out, hidden), nn.GELU(), nn.Linear(hidden, CONTACTS * 3))

    def fit(self, windows: Fragments) -> None:
        """Compute mean and principal components of the complete fragments."""
        complete = windows.positions[windows.exists.all(1)].reshape(-1, WINDOW * 9).astype(np.float64)
        if len(complete) < len(self.basis):
            raise ValueError(f"{len(complete)} complete windows are too few for {len(self.basis)} components")
        mean = complete.mean(0)
        centered = complete - mean
        _, vectors = np.linalg.eigh(centered.T @ centered)  # ascending
        self.mean.copy_(torch.from_numpy(mean))
        self.basis.copy_(torch.from_numpy(vectors[:, ::-1][:, : len(self.basis)].T.copy()))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (rows, out) -> window (rows, 9, 3, 3) and contacts (rows, 6, 3), Å."""
        window = torch.addmm(self.mean, z[:, : len(self.basis)], self.basis)
        # Contacts are about 10 Å away; the network's outputs are near one.
        return window.view(-1, WINDOW, 3, 3), 10 * self.contacts(z).view(-1, CONTACTS, 3)


def local_loss(window: Tensor, contacts: Tensor, truth: Targets, contacts_weight: float) -> tuple[Tensor, Tensor]:
    """The loss (a scalar), and the RMS error of the fragments, Å."""
    near = _mean_square(window.flatten(2), truth.window.flatten(2), truth.window_exists, 3)
    far = _mean_square(contacts, truth.contacts, truth.contacts_exist, 1)
    loss = _soft_root(near).mean() + contacts_weight * _soft_root(far).mean()
    return loss, near.detach().mean().sqrt()


def _mean_square(guess: Tensor, truth: Tensor, exists: Tensor, atoms: int) -> Tensor:
    """Mean squared distance (rows,) over the atoms that exist; guess and truth (rows, places, 3 * atoms)."""
    square = (guess - truth).square().sum(-1) / atoms
    weight = exists.to(square.dtype)
    return (square * weight).sum(1) / weight.sum(1).clamp_min(1)


def _soft_root(square: Tensor) -> Tensor:
    return (square + _SOFT**2).sqrt() - _SOFT
