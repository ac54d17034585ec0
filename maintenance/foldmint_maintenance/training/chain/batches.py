"""Random batches of chains of equal length, which depend on seed and step number only."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.distributed.process_group import ProcessGroup
from foldmint_maintenance.training.chain.losses import Chains
from foldmint_tokenizer.decoder import Rigids

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"

# A batch may crop chains that exceed its length by up to this factor plus this many residues.
_STRETCH = 1.1
_SLACK = 8
# Å; the bond from C to the next N is 1.33 long.
_LONGEST_BOND = 2.0


class ChainBatch(NamedTuple):
    """tokens: (n, length), zero in the joint stage. residue_types: (n, length), index in `AMINO_ACIDS`, -1 for others.

    pair_rows: (rows,), residues whose pairs with all others are compared. rows: neighborhoods of the residues with a
    frame, chain after chain, for the encoder; None in the decoder stage.
    """

    chains: Chains
    tokens: Tensor
    residue_types: Tensor
    pair_rows: Tensor
    rows: tuple[Tensor, Tensor, Tensor, Tensor] | None

    def to(self, device: torch.device) -> "ChainBatch":
        """The same on a device."""
        chains = Chains(*(part.to(device) for part in self.chains))
        tokens, residue_types, pair_rows = (
            part.to(device) for part in (self.tokens, self.residue_types, self.pair_rows)
        )
        if self.rows is None:
            return ChainBatch(chains, tokens, residue_types, pair_rows, None)
        rotation, origin, offset, exists = (part.to(device) for part in self.rows)
        return ChainBatch(chains, tokens, residue_types, pair_rows, (rotation, origin, offset, exists))


class ChainBatches:
    """Draws batches.

    tokens: (residues,) of the data; None to get neighborhoods instead. batch: residues of all processes together. Every
    process draws the same batch and takes its slice. among: numbers of the chains to draw from; None for all.
    """

    def __init__(
        self,
        data: PreparedSet,
        tokens: NDArray[np.int64] | None,
        batch: int,
        pair_rows: int,
        seed: int,
        group: ProcessGroup,
        among: NDArray[np.integer] | None = None,
    ) -> None:
        self._data, self._tokens, self._group = data, tokens, group
        self._batch, self._pair_rows, self._seed = batch, pair_rows, seed
        starts = np.flatnonzero(np.diff(data.chain, prepend=-1))
        self._starts, self._lengths = starts, np.diff([*starts, len(data.chain)])
        if among is not None:
            self._starts, self._lengths = starts[among], self._lengths[among]
        exists = data.shape.frames.exists
        gap = np.linalg.norm(data.backbone[1:, 0] - data.backbone[:-1, 2], axis=-1)
        # A comparison with NaN is false.
        self._follows = (data.chain[1:] == data.chain[:-1]) & exists[1:] & exists[:-1] & (gap < _LONGEST_BOND)
        self._row_of = np.full(len(data.chain), -1)
        self._row_of[data.shape.queries] = np.arange(len(data))
        place_of = np.full(256, -1)
        place_of[np.frombuffer(AMINO_ACIDS.encode(), np.uint8)] = np.arange(len(AMINO_ACIDS))
        self._residue_types = place_of[data.sequence]
        self._atoms = np.where(exists[:, None, None], data.backbone, 0).astype(np.float32)

    def batch(self, step: int, crop: int) -> ChainBatch:
        """The process's slice of a step's batch. crop: maximum length, residues."""
        random = np.random.default_rng([self._seed, step])
        length = int(min(self._lengths[random.integers(len(self._lengths))], crop))
        count = max(self._group.size, round(self._batch / length))
        cut = np.minimum(self._lengths, crop)
        alike = np.flatnonzero((cut >= length) & (cut <= length * _STRETCH + _SLACK))
        chosen = random.choice(alike, count)
        first = self._starts[chosen] + random.integers(0, self._lengths[chosen] - length + 1)
        compared = np.sort(random.choice(length, min(length, self._pair_rows), replace=False))
        place = (first[:, None] + np.arange(length))[self._group.slice_of(count)]
        chains = Chains(
            torch.from_numpy(self._atoms[place]),
            torch.from_numpy(self._data.shape.frames.exists[place]),
            torch.from_numpy(self._follows[place[:, :-1]]),
        )
        tokens = np.zeros_like(place) if self._tokens is None else self._tokens[place]
        return ChainBatch(
            chains,
            torch.from_numpy(tokens),
            torch.from_numpy(self._residue_types[place]),
            torch.from_numpy(compared),
            self._neighborhoods(place) if self._tokens is None else None,
        )

    def _neighborhoods(self, place: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        select = self._row_of[place[self._data.shape.frames.exists[place]]]
        rotation, origin, offset, exists = (torch.from_numpy(part) for part in self._data.rows(select))
        return rotation, origin, offset, exists

    def motions(self, step: int, count: int) -> tuple[Tensor, Rigids]:
        """Tokens (count,) of random residues, and the motions from the previous residue to each."""
        if self._tokens is None:
            raise ValueError("there are no tokens")
        random = np.random.default_rng([self._seed, step, 1])
        bound = np.flatnonzero(self._follows)
        share = self._group.even_slice(count // self._group.size * self._group.size)
        before = random.choice(bound, count)[share]
        return torch.from_numpy(self._tokens[before + 1]), self._motions(before)

    def mean_motion(self, sample: int = 20_000) -> Rigids:
        """Mean of a sample of motions. Its rotation part is a mean of matrices, not itself a rotation."""
        bound = np.flatnonzero(self._follows)
        motions = self._motions(np.random.default_rng(self._seed).choice(bound, sample))
        return Rigids(motions.rotation.mean(0), motions.origin.mean(0))

    def _motions(self, before: NDArray[np.int64]) -> Rigids:
        rotation, origin, _ = self._data.shape.frames
        back = rotation[before].transpose(0, 2, 1)
        apart = (origin[before + 1] - origin[before])[..., None]
        return Rigids(
            torch.from_numpy((back @ rotation[before + 1]).astype(np.float32)),
            torch.from_numpy((back @ apart)[..., 0].astype(np.float32)),
        )
