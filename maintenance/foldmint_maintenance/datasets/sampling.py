"""Random samples of a set's chains, and groups of chains of a bounded size."""

from collections.abc import Iterable, Iterator

import numpy as np

from foldmint_maintenance.datasets.records import Record

GROUP_RESIDUES = 16_384
"""Residues of a group: enough to fill batches, few enough to fit into memory whatever the set's size."""


def drawn_chains(records: Iterable[Record], residues: int, seed: int) -> list[Record]:
    """Chains in random order, as many as needed for `residues`; all if they are fewer."""
    everything = list(records)
    drawn: list[Record] = []
    for index in np.random.default_rng(seed).permutation(len(everything)):
        if residues <= 0:
            break
        drawn.append(everything[index])
        residues -= len(everything[index].sequence)
    return drawn


def sample_chains(records: Iterable[Record], chains: int, seed: int) -> tuple[list[Record], int]:
    """So many chains at random, in the set's order, and how many the set has; all if there are no more."""
    everything = list(records)
    if len(everything) <= chains:
        return everything, len(everything)
    drawn = np.random.default_rng(seed).choice(len(everything), chains, replace=False)
    return [everything[index] for index in np.sort(drawn)], len(everything)


def grouped(records: Iterable[Record], size: int = GROUP_RESIDUES) -> Iterator[list[Record]]:
    """Records in groups, in order; each group ends with the record that brings it to `size` residues."""
    group: list[Record] = []
    residues = 0
    for record in records:
        group.append(record)
        residues += len(record.sequence)
        if residues >= size:
            yield group
            group, residues = [], 0
    if group:
        yield group
