"""The reservoir: a uniform sample of what was computed, bounded, and served to operators."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats

from foldmint.v1 import codebook_pb2 as pb
from foldmint_server.codebooks.reservoir import Reservoir
from foldmint_tokenizer import backbone
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.neighborhoods import structure_geometry
from foldmint_tokenizer.store.model_store import load_model
from helpers.chains import RealChain
from helpers.support import admin_of, request_of, running_server, stub_of
from helpers.waiting import wait_until


def numbered(start: int, stop: int) -> torch.Tensor:
    """Vectors that tell which they are."""
    return torch.arange(start, stop, dtype=torch.float32)[:, None] * torch.tensor([1.0, -1.0])


def batches(total: int, sizes: Iterator[int]) -> Iterator[tuple[int, int]]:
    start = 0
    while start < total:
        stop = min(total, start + next(sizes))
        yield start, stop
        start = stop


def test_the_first_fill_it() -> None:
    reservoir = Reservoir(10, 2, np.random.default_rng(0))
    assert reservoir.sample().vectors.shape == (0, 2)
    reservoir.record(numbered(0, 4))
    reservoir.record(numbered(4, 7))
    vectors, seen = reservoir.sample()
    assert seen == 7
    assert sorted(vectors[:, 0].tolist()) == [0, 1, 2, 3, 4, 5, 6]
    assert (vectors[:, 1] == -vectors[:, 0]).all()
    reservoir.record(numbered(7, 1000))
    vectors, seen = reservoir.sample()
    assert (vectors.shape, seen, len(set(vectors[:, 0].tolist()))) == ((10, 2), 1000, 10)
    assert vectors.dtype == np.float32
    assert (vectors[:, 1] == -vectors[:, 0]).all()


def test_each_vector_is_kept_with_the_same_chance() -> None:
    """Of 600 vectors in batches of 1 to 39, 80 are kept, 300 times over: chi-square, and no bias to early or late."""
    size, total, trials = 80, 600, 300
    generator = np.random.default_rng(1)
    kept = np.zeros(total, np.int64)
    for one in generator.spawn(trials):
        reservoir = Reservoir(size, 2, one)
        for start, stop in batches(total, iter(lambda: int(generator.integers(1, 40)), 0)):
            reservoir.record(numbered(start, stop))
        kept[reservoir.sample().vectors[:, 0].astype(int)] += 1
    assert kept.sum() == size * trials
    # Those kept in one trial are drawn without putting back: the counts' variance is that of a binomial.
    expected = trials * size / total
    variance = expected * (1 - size / total)
    statistic = float(((kept - expected) ** 2).sum() / variance) * (total - 1) / total
    assert 0.001 < stats.chi2.sf(statistic, total - 1) < 0.999
    assert stats.spearmanr(np.arange(total), kept).pvalue > 0.001


def test_a_biased_reservoir_would_be_found() -> None:
    """What the test above sees: were the last of each batch always kept, its statistic would be far off."""
    size, total, trials = 80, 600, 300
    kept = np.zeros(total, np.int64)
    for one in np.random.default_rng(1).spawn(trials):
        # A draw among the reservoir's places alone, as for the first vector after it is full.
        places = np.where(np.arange(total) < size, np.arange(total), one.integers(0, size + 1, total))
        last = {int(place): number for number, place in enumerate(places) if place < size}
        kept[list(last.values())] += 1
    expected = trials * size / total
    statistic = float(((kept - expected) ** 2).sum() / (expected * (1 - size / total)))
    assert stats.chi2.sf(statistic, total - 1) < 1e-6


def test_a_sample_is_of_random_choice_and_order() -> None:
    reservoir = Reservoir(20, 2, np.random.default_rng(2))
    reservoir.record(numbered(0, 20))
    first = np.zeros(20, np.int64)
    for _ in range(4000):
        vectors, seen = reservoir.sample(3)
        assert (vectors.shape, seen) == ((3, 2), 20)
        assert len(set(vectors[:, 0].tolist())) == 3
        first[int(vectors[0, 0])] += 1
    assert stats.chisquare(first).pvalue > 0.001
    assert len(reservoir.sample(50).vectors) == 20


@pytest.mark.slow
def test_what_a_server_samples(short: list[RealChain]) -> None:
    """Vectors of the residues that it answered, of those with a frame, and of no others."""
    model = load_model()
    engine = Engine(model.encoder)
    broken = [RealChain(c.id, c.sequence, c.residue_index, c.coordinates.copy()) for c in short]
    for chain in broken:
        chain.coordinates[3, 1] = np.nan
    shapes = [structure_geometry([backbone(c.coordinates, c.residue_index)], False) for c in broken]
    z = torch.cat([engine.vectors(shape.rows(slice(0, len(shape.queries)))) for shape in shapes]).numpy()
    with (
        running_server("--reservoir", "100") as server,
        stub_of(server) as stub,
        admin_of(server) as admin,
    ):
        assert admin.SampleEmbeddings(pb.SampleEmbeddingsRequest()).seen == 0
        for chain in broken:
            stub.Tokenize(request_of(chain))
        # The device's thread samples a batch after its answer has gone.
        wait_until(lambda: admin.SampleEmbeddings(pb.SampleEmbeddingsRequest()).seen >= len(z))
        answers = [admin.SampleEmbeddings(pb.SampleEmbeddingsRequest(count=count)) for count in (0, 7, 1000)]
    assert [answer.seen for answer in answers] == [len(z)] * 3
    assert len(z) == sum(len(chain.sequence) for chain in broken) - len(broken)
    for answer, count in zip(answers, (100, 7, 100), strict=True):
        assert answer.dimensions == model.config.out
        assert answer.encoder_digest == model.encoder_digest
        vectors = np.frombuffer(answer.embeddings, "<f4").reshape(-1, answer.dimensions)
        assert len(vectors) == count
        nearest = np.linalg.norm(vectors[:, None] - z[None], axis=2)
        assert nearest.min(1).max() < 1e-3
        assert len(set(nearest.argmin(1).tolist())) == count


@pytest.mark.parametrize("size", [1, 4096, 10_000])
def test_many_vectors_in_few_places(size: int) -> None:
    reservoir = Reservoir(size, 2, np.random.default_rng(3))
    for start in range(0, 40_000, 4000):
        reservoir.record(numbered(start, start + 4000))
    vectors, seen = reservoir.sample()
    assert (seen, len(set(vectors[:, 0].tolist()))) == (40_000, size)
    if size > 1:
        assert abs(vectors[:, 0].mean() / 20_000 - 1) < 0.05
