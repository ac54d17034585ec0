"""Jobs of many structures with known results, and an account of the actual results.

Each structure is a stretch of a real chain with a unique name and numbering, which are returned with its tokens: an
answer for another structure is detected, whatever its tokens.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from benchmarks._load import CHAINS
from foldmint_client import Backbone, Tokens
from foldmint_maintenance.datasets.records import read_parquet
from foldmint_tokenizer import StructureTokenizer, backbone

# Numbers of different structures differ by this much; in any one of them they stay in 32 bits.
_APART = 10_000


@dataclass(frozen=True)
class Stretch:
    """Part of a real chain. coordinates: (residues, 3, 3), Å. index: (residues,). tokens: by version, in process."""

    coordinates: NDArray[np.float32]
    index: NDArray[np.int64]
    tokens: dict[str, list[int]]


def stretches(
    lengths: Sequence[int], count: int, tokenizers: Mapping[str, StructureTokenizer] | None = None
) -> list[Stretch]:
    """Stretches of these lengths in turn, with the tokens that each version of the codebook gives in process.

    tokenizers: by the names of the versions; the default model's one version, without name, if not given.
    """
    tokenizers = {"": StructureTokenizer.load()} if tokenizers is None else tokenizers
    found: list[Stretch] = []
    sizes = cycle(lengths)
    for record in read_parquet(CHAINS):
        start, size = 0, next(sizes)
        while start + size <= len(record.residue_index) and len(found) < count:
            part = slice(start, start + size)
            x, index = record.coordinates[part], np.asarray(record.residue_index[part], np.int64)
            tokens = {
                version: one.tokenize(backbone(x, index))[0].tokens.tolist() for version, one in tokenizers.items()
            }
            found.append(Stretch(x, index, tokens))
            start, size = start + size, next(sizes)
    if len(found) < count:
        raise ValueError(f"{CHAINS} has {len(found)} such stretches, not {count}")
    return found


def structure(stretch: Stretch, number: int) -> Backbone:
    """The stretch as the structure of this number."""
    index = stretch.index - stretch.index[0] + _APART * (number % 200_000)
    return Backbone(stretch.coordinates, index, chain=str(number))


@dataclass
class Account:
    """The results of a job's structures, by their numbers, in the order of the answers.

    asked: how many the client pulled. versions: names of versions of the codebook, as answers state them, by which
    `Stretch.tokens` knows them. wrong: answers that are not the structure's own tokens. failed: what failed instead of
    being answered.
    """

    stretches: Sequence[Stretch]
    versions: Mapping[str, str] = field(default_factory=lambda: {"000001": ""})
    asked: int = 0
    answers: list[int] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    residues: int = 0

    def structures(self, least: int, until: Callable[[], bool] = lambda: True) -> Iterator[tuple[int, Backbone]]:
        """So many structures, numbers as keys; and more, for as long as `until` is false, but for a hundred times."""
        while self.asked < least or (self.asked < 100 * least and not until()):
            number = self.asked
            self.asked += 1
            yield number, structure(self.stretches[number % len(self.stretches)], number)

    def take(self, number: int, result: object) -> None:
        """Record a result."""
        self.answers.append(number)
        stretch = self.stretches[number % len(self.stretches)]
        if not isinstance(result, Tokens):
            self.failed.append(f"{number}: {type(result).__name__}: {result}")
            return
        (chain,) = result.chains
        self.residues += len(chain)
        expected = stretch.tokens.get(self.versions.get(result.codebook_version, result.codebook_version))
        own = structure(stretch, number)
        if (
            chain.chain != str(number)
            or not np.array_equal(chain.residue_index, np.asarray(own.residue_index))
            or chain.tokens.tolist() != expected
        ):
            self.wrong.append(number)

    @property
    def lost(self) -> int:
        """How many were never answered."""
        return self.asked - len(set(self.answers))

    @property
    def twice(self) -> int:
        """How many answers were one too many."""
        return len(self.answers) - len(set(self.answers))

    @property
    def late(self) -> int:
        """How many came after one of a higher number."""
        return int((np.diff(self.answers) < 0).sum()) if self.answers else 0

    @property
    def whole(self) -> bool:
        """Whether each was answered once, in order, with its own tokens."""
        return not (self.lost or self.twice or self.late or self.wrong or self.failed)

    def __str__(self) -> str:
        return (
            f"{len(self.answers)} answers of {self.asked}: lost {self.lost}, twice {self.twice}, out of order "
            f"{self.late}, wrong {len(self.wrong)}, failed {len(self.failed)} {self.failed[:3]}"
        )


def collect(
    account: Account, results: Iterable[tuple[int, object]], each: Callable[[int], object] | None = None
) -> Account:
    """Record all results. each: called after each with their number."""
    for number, result in results:
        account.take(number, result)
        if each is not None:
            each(len(account.answers))
    return account


async def collect_async(
    account: Account, results: AsyncIterable[tuple[int, object]], each: Callable[[int], object] | None = None
) -> Account:
    """As `collect`."""
    async for number, result in results:
        account.take(number, result)
        if each is not None:
            each(len(account.answers))
    return account
