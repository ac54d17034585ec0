"""Comparison of the tokens of two structures, chain by chain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from foldmint_client.analysis.alignment import Alignment, align, check_size
from foldmint_client.analysis.code_distances import CodeVectors
from foldmint_client.errors import InvalidOptions
from foldmint_client.models.responses import ChainTokens, Tokens

_SCORES = np.array([-1, 1, 2, 0], np.int8)  # of each Kind
GAP = 1


class Kind(IntEnum):
    """What a column of an alignment shows. UNKNOWN: a residue has no frame, and its token means nothing."""

    DIFFERENT = 0
    NEAR = 1
    EQUAL = 2
    UNKNOWN = 3
    GAP = 4


@dataclass(frozen=True, eq=False)
class ChainComparison:
    """Two chains, aligned.

    first_codes, second_codes: (residues,), int64, without special tokens. kinds: (columns,), of Kind. distances:
    (columns,), float32, between the two codes, in the units of their vectors, NaN where there are not two; None without
    a codebook.
    """

    first: ChainTokens
    second: ChainTokens
    first_codes: npt.NDArray[np.int64]
    second_codes: npt.NDArray[np.int64]
    alignment: Alignment
    kinds: npt.NDArray[np.int8]
    distances: npt.NDArray[np.float32] | None

    def count(self, kind: Kind) -> int:
        """Columns of a kind."""
        return int(np.count_nonzero(self.kinds == kind))

    @property
    def compared(self) -> int:
        """Columns with two tokens that mean something."""
        return self.count(Kind.EQUAL) + self.count(Kind.NEAR) + self.count(Kind.DIFFERENT)

    @property
    def share(self) -> float | None:
        """Share of equal tokens among those compared; None if there are none."""
        return self.count(Kind.EQUAL) / self.compared if self.compared else None

    def row(self) -> dict[str, Any]:
        """The pair as JSON has it: counts, and a list for each of the columns, null for a gap."""
        distances = None
        if self.distances is not None:
            distances = [None if np.isnan(value) else float(str(value)) for value in self.distances]
        sides = (
            ("a", self.first, self.first_codes, self.alignment.first),
            ("b", self.second, self.second_codes, self.alignment.second),
        )
        row: dict[str, Any] = {f"chain_{name}": chain.chain for name, chain, _, _ in sides}
        row |= {kind.name.lower(): self.count(kind) for kind in Kind}
        row |= {"compared": self.compared, "share": self.share, "score": self.alignment.score}
        for name, chain, codes, places in sides:
            row[f"residue_index_{name}"] = _placed(chain.residue_index, places)
            row[f"tokens_{name}"] = _placed(codes, places)
        return row | {"kinds": [Kind(kind).name.lower() for kind in self.kinds], "distances": distances}


def compare_chains(
    first: ChainTokens, second: ChainTokens, vectors: CodeVectors | None = None, near: float = 0.0
) -> ChainComparison:
    """Align two chains: equal codes score 2, near ones 1, others -1, a gap -1, a residue without a frame 0.

    near: distance of two codes up to which they are near. Raises InvalidOptions for tokens that do not fit to their
    residues or are not codes of `vectors`, and for chains too long to be aligned.
    """
    check_size(len(first), len(second))
    rows, columns = _codes(first), _codes(second)
    equal = rows[:, None] == columns
    kinds = equal.astype(np.int8) * Kind.EQUAL
    found = None
    if vectors is not None:
        most = max((int(part.max()) for part in (rows, columns) if part.size), default=0)
        if most >= len(vectors):
            raise InvalidOptions(f"the codebook has {len(vectors)} codes, and there is a token {most}")
        found = vectors.distances[rows[:, None], columns]
        kinds[~equal & (found <= near)] = Kind.NEAR
    kinds[~first.has_frame] = Kind.UNKNOWN
    kinds[:, ~second.has_frame] = Kind.UNKNOWN
    alignment = align(_SCORES[kinds], GAP)
    both = (alignment.first >= 0) & (alignment.second >= 0)
    places = alignment.first[both], alignment.second[both]
    shown = np.full(len(both), Kind.GAP, np.int8)
    shown[both] = kinds[places]
    distances = None
    if found is not None:
        distances = np.full(len(both), np.nan, np.float32)
        distances[both] = np.where(kinds[places] == Kind.UNKNOWN, np.nan, found[places])
    return ChainComparison(first, second, rows, columns, alignment, shown, distances)


def chain_pairs(first: Tokens, second: Tokens) -> Iterator[tuple[ChainTokens, ChainTokens]]:
    """Which chains to compare: those of the same name; if there are none, the first with the first, and so on."""
    names = {chain.chain: chain for chain in second.chains}
    pairs = [(chain, names[chain.chain]) for chain in first.chains if chain.chain in names]
    yield from pairs or zip(first.chains, second.chains, strict=False)


def share(pairs: Sequence[ChainComparison]) -> float | None:
    """Share of equal tokens in all pairs."""
    compared = sum(pair.compared for pair in pairs)
    return sum(pair.count(Kind.EQUAL) for pair in pairs) / compared if compared else None


def _codes(chain: ChainTokens) -> npt.NDArray[np.int64]:
    """The codes, a residue each; special tokens at the ends, whose ids are above all codes, are taken off."""
    codes = chain.tokens.astype(np.int64)
    more = len(codes) - len(chain)
    if more == 2:
        codes = codes[1:-1]
    elif more == 1:
        codes = codes[1:] if codes[0] > codes[-1] else codes[:-1]
    elif more:
        raise InvalidOptions(f"chain {chain.chain!r} has {len(codes)} tokens and {len(chain)} residues")
    return codes


def _placed(values: npt.NDArray[np.integer], places: npt.NDArray[np.int64]) -> list[int | None]:
    return [None if place < 0 else int(values[place]) for place in places]
