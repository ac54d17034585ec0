"""Targets and losses of an encoder whose vectors hold motions along the chain.

A vector starts with the motion from a residue to the next: a rotation matrix times a lever arm (Å), and a translation
(Å). Environment features follow, from which a small predictor, discarded after training, reads DSSP letter, burial and
contacts. Noise of the size of the quantization error is added before the prediction.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.datasets.surroundings import surroundings
from foldmint_maintenance.training.phases import Phase, silent

MOTION = 12
"""Dimensions of a motion: nine of the rotation matrix, row by row, and three of the translation."""

LETTERS = "CEHTSGBIP"
"""DSSP letters that the predictor distinguishes."""

_BURIAL_CLASSES = 16
_CONTACT_CLASSES = 8
# Å; the motion loss is quadratic for errors well below it, and linear for larger ones.
_SOFT = 0.2
# Å; the bond from C to the next N is 1.33 long.
_LONGEST_BOND = 2.0


def follows(data: PreparedSet) -> NDArray[np.bool_]:
    """Whether each residue (residues,) is bonded to the next one and both have a frame; false for the last."""
    exists = data.shape.frames.exists
    gap = np.linalg.norm(data.backbone[1:, 0] - data.backbone[:-1, 2], axis=-1)
    # A comparison with NaN is false.
    bonded = (data.chain[1:] == data.chain[:-1]) & exists[1:] & exists[:-1] & (gap < _LONGEST_BOND)
    return np.append(bonded, False)


class Targets(NamedTuple):
    """motion (rows, 12): rotation matrix and translation (Å). moves (rows,): whether the motion is defined. letter
    (rows,): index into `LETTERS`, -1 if unknown. neighbors, above, order (rows,): classes, each of about equally many
    residues.
    """

    motion: Tensor
    moves: Tensor
    letter: Tensor
    neighbors: Tensor
    above: Tensor
    order: Tensor

    def to(self, device: torch.device) -> "Targets":
        """The same on a device."""
        return Targets(*(part.to(device) for part in self))


class TargetTable:
    """Targets of all rows of a set. phase: called when they begin to be computed."""

    def __init__(self, data: PreparedSet, phase: Phase = silent) -> None:
        self._frames, self._queries = data.shape.frames, data.shape.queries
        self._follows = follows(data)
        around = surroundings(data, phase("measuring surroundings", len(data.chain)))
        rows = [column[self._queries] for column in around]
        classes = (_BURIAL_CLASSES, _CONTACT_CLASSES, _CONTACT_CLASSES)
        self._classes = [_classes(column, count) for column, count in zip(rows, classes, strict=True)]
        place_of = np.full(256, -1)
        place_of[np.frombuffer(LETTERS.encode(), np.uint8)] = np.arange(len(LETTERS))
        self._letters = place_of[data.dssp[self._queries]]

    def rows(self, select: NDArray[np.integer]) -> Targets:
        """Targets of the rows `select`."""
        query = self._queries[select]
        moves = self._follows[query]
        motion = motions(self._frames.rotation, self._frames.origin, query, np.where(moves, query + 1, query))
        return Targets(
            torch.from_numpy(motion),
            torch.from_numpy(moves),
            torch.from_numpy(self._letters[select]),
            *(torch.from_numpy(column[select]) for column in self._classes),
        )


def motions(
    rotation: NDArray[np.floating], origin: NDArray[np.floating], one: NDArray[np.integer], other: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Motions (rows, 12) from residues `one` to `other`; rotation (residues, 3, 3), origin (residues, 3), Å."""
    back = rotation[one].transpose(0, 2, 1)
    turn = (back @ rotation[other]).reshape(-1, 9)
    apart = (back @ (origin[other] - origin[one])[..., None])[..., 0]
    return np.concatenate([turn, apart], 1).astype(np.float32)


def _classes(column: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    bounds = np.quantile(column, np.arange(1, count) / count)
    return np.digitize(column, bounds).astype(np.int64)


class EnvironmentPredictor(nn.Module):
    """Predicts classes of a residue's environment from noisy vectors.

    Environment features are normalized to unit variance over the batch, and get noise of `blur`. The motion is an input
    too, with noise of `motion_blur` (Å at the lever arm), so that the features need not repeat what it implies.
    """

    def __init__(self, environment: int, lever: float, blur: float, motion_blur: float, hidden: int = 192) -> None:
        super().__init__()
        self.lever, self.blur, self.motion_blur = lever, blur, motion_blur
        self.norm = nn.BatchNorm1d(environment, affine=False, momentum=0.01)
        self.sizes = (len(LETTERS), _BURIAL_CLASSES, _CONTACT_CLASSES, _CONTACT_CLASSES)
        self.hidden = nn.Sequential(
            nn.Linear(MOTION + environment, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.logits = nn.Linear(hidden, sum(self.sizes))

    def forward(self, z: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Logits of letter, neighbors, above and order; z (rows, 12 + environment), the motion at the lever arm."""
        noise = torch.randn(z.shape, generator=generator, device=generator.device).to(z.device)
        motion = z[:, :MOTION] + self.motion_blur * noise[:, :MOTION]
        around = self.norm(z[:, MOTION:]) + self.blur * noise[:, MOTION:]
        logits = self.logits(self.hidden(torch.cat([motion / self.lever, around], 1)))
        letter, neighbors, above, order = logits.split(self.sizes, 1)
        return letter, neighbors, above, order


def motion_loss(z: Tensor, truth: Targets, lever: float) -> tuple[Tensor, Tensor]:
    """The loss (rows,), Å, of motions in z (rows, 12 or more), and squared angles (rows,), radians², of rotations.

    Rows without a motion have zero. The angle is that of small errors: |ΔR|² / 2.
    """
    apart = z[:, :MOTION] - torch.cat([truth.motion[:, :9] * lever, truth.motion[:, 9:]], 1)
    square = torch.where(truth.moves, apart.square().sum(1), 0)
    turned = torch.where(truth.moves, apart[:, :9].square().sum(1) / (2 * lever**2), 0)
    return (square + _SOFT**2).sqrt() - _SOFT, turned.detach()


def environment_loss(logits: tuple[Tensor, ...], truth: Targets) -> tuple[Tensor, Tensor]:
    """The loss, a weighted sum of mean cross-entropies, nats, and each of them: letter, neighbors, above, order."""
    wanted = (truth.letter, truth.neighbors, truth.above, truth.order)
    each = torch.stack(
        [F.cross_entropy(guess, true, ignore_index=-1) for guess, true in zip(logits, wanted, strict=True)]
    )
    weights = each.new_tensor([2.0, 1.0, 0.5, 0.5])
    return (torch.nan_to_num(each) * weights).sum(), each.detach()
