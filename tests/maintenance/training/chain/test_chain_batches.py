"""Batches of chains: what is in them, and that processes share them."""

import numpy as np
import pytest
import torch

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.distributed.process_group import ALONE, ProcessGroup
from foldmint_maintenance.training.chain.batches import AMINO_ACIDS, ChainBatches

STEPS = range(12)


class OneOfTwo(ProcessGroup):
    size = 2

    def __init__(self, rank: int) -> None:
        self.rank = rank


def _batches(data: PreparedSet, group: ProcessGroup = ALONE, joint: bool = False, seed: int = 0) -> ChainBatches:
    tokens = None if joint else np.arange(len(data.chain))
    return ChainBatches(data, tokens, 128, 8, seed, group)


def test_a_batch_is_stretches_of_chains(data: PreparedSet) -> None:
    places = set()
    for step in STEPS:
        batch = _batches(data).batch(step, 32)
        count, length = batch.tokens.shape
        assert (count, length <= 32) == (4, True)
        # Tokens are places in the set here: a stretch of one chain, with its atoms and residue_types.
        for row, tokens in enumerate(batch.tokens.numpy()):
            assert (np.diff(tokens) == 1).all()
            assert len(set(data.chain[tokens])) == 1
            there = data.shape.frames.exists[tokens]
            assert np.array_equal(batch.chains.exists[row].numpy(), there)
            assert np.array_equal(batch.chains.atoms[row].numpy()[there], data.backbone[tokens[there]])
            assert not batch.chains.atoms[row][torch.from_numpy(~there)].any()
            bound = there[1:] & there[:-1]
            assert np.array_equal(batch.chains.follows[row].numpy(), bound)
            places |= set(tokens)
        assert (batch.residue_types == AMINO_ACIDS.index("A")).all()
        assert len(set(batch.pair_rows.tolist())) == 8
        assert 0 <= batch.pair_rows.min() <= batch.pair_rows.max() < length
    assert len(places) > 0.8 * len(data.chain)


def test_a_gap_in_space_is_a_break(data: PreparedSet) -> None:
    last = np.flatnonzero(data.chain == 5)
    data.backbone[last[28:]] += 30
    batches = _batches(data)
    found = [(batch.tokens, batch.chains.follows) for batch in (batches.batch(step, 32) for step in range(30))]
    broken = {int(t) for tokens, follows in found for t in tokens[:, :-1][~follows]}
    missing = int(np.flatnonzero(~data.shape.frames.exists)[0])
    assert broken == {last[27], missing - 1, missing}


def test_neighborhoods_are_of_the_residues_with_a_frame(data: PreparedSet) -> None:
    for step in STEPS:
        batch = _batches(data, joint=True).batch(step, 32)
        tokens = _batches(data).batch(step, 32).tokens  # places in the set
        assert batch.rows is not None
        select = np.searchsorted(data.shape.queries, tokens[batch.chains.exists].numpy())
        for found, expected in zip(batch.rows, map(torch.from_numpy, data.rows(select)), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("joint", [True, False])
def test_processes_share_what_one_would_have(joint: bool, data: PreparedSet) -> None:
    odd = 0
    for step in STEPS:
        whole = _batches(data, joint=joint).batch(step, 55)
        first, second = (_batches(data, OneOfTwo(rank), joint).batch(step, 55) for rank in (0, 1))
        odd += len(whole.tokens) % 2
        for part in ("atoms", "exists", "follows"):
            shared = torch.cat([getattr(first.chains, part), getattr(second.chains, part)])
            assert torch.equal(shared, getattr(whole.chains, part))
        assert torch.equal(torch.cat([first.tokens, second.tokens]), whole.tokens)
        assert torch.equal(first.pair_rows, whole.pair_rows)
        assert torch.equal(second.pair_rows, whole.pair_rows)
        if joint:
            assert whole.rows is not None
            assert first.rows is not None
            assert second.rows is not None
            for one, other, both in zip(first.rows, second.rows, whole.rows, strict=True):
                assert torch.equal(torch.cat([one, other]), both)
    assert odd, "no batch was of an odd number of chains"
    if not joint:
        parts = [_batches(data, OneOfTwo(rank)).motions(3, 10)[0] for rank in (0, 1)]
        assert torch.equal(torch.cat(parts), _batches(data).motions(3, 10)[0])


def test_seed_and_step_alone_say_what_is_drawn(data: PreparedSet) -> None:
    batches = _batches(data)
    fifth = batches.batch(5, 32).tokens
    batches.batch(9, 32)
    assert torch.equal(batches.batch(5, 32).tokens, fifth)
    assert not torch.equal(batches.batch(6, 32).tokens[:, :20], fifth[:, :20])
    assert not torch.equal(_batches(data, seed=1).batch(5, 32).tokens[:, :20], fifth[:, :20])


def test_motions_lead_from_frame_to_frame(data: PreparedSet) -> None:
    tokens, motions = _batches(data).motions(0, 200)
    rotation, origin, exists = data.shape.frames
    for token, turn, move in zip(tokens.numpy(), motions.rotation.numpy(), motions.origin.numpy(), strict=True):
        assert exists[token - 1 : token + 1].all()
        np.testing.assert_allclose(rotation[token - 1] @ turn, rotation[token], atol=1e-5)
        np.testing.assert_allclose(origin[token - 1] + rotation[token - 1] @ move, origin[token], atol=1e-4)
    mean = _batches(data).mean_motion()
    many = _batches(data).motions(1, 20_000)[1]
    torch.testing.assert_close(mean.origin, many.origin.mean(0), rtol=0, atol=0.05)
    with pytest.raises(ValueError, match="no tokens"):
        _batches(data, joint=True).motions(0, 10)
