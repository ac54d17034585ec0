"""Training on chains: what moves in each stage, what is learnt, and that it goes on as if it had never stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_maintenance.errors import CheckpointMismatch
from foldmint_maintenance.training import checkpoint
from foldmint_maintenance.training.chain.batches import ChainBatch, ChainBatches
from foldmint_maintenance.training.chain.trainer import ChainProgress, ChainTrainer
from foldmint_maintenance.training.config import ChainConfig, LossWeights, Stage
from foldmint_maintenance.training.latents import tokens_of
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig
from foldmint_tokenizer.vocabulary import BOS, EOS

SHORT = ChainConfig(
    steps=8,
    batch=128,
    crop=32,
    head_steps=3,
    pair_rows=8,
    warmup=2,
    coarse_from=0.25,
    settling=2,
    # Some codes are replaced on the way.
    dead_share=0.6,
)


class _Cut(Exception):
    pass


class _Made:
    """Trainers of the same beginning, as many as are asked for."""

    def __init__(self, data: PreparedSet, encoder: Encoder, codebook: Codebook) -> None:
        self.data, self.encoder, self.codebook = data, encoder, codebook
        self.tokens = tokens_of(encoder, codebook, data, ALONE, "cpu")

    def __call__(self, config: ChainConfig, **given: Any) -> ChainTrainer:
        sizes = self.encoder.config
        encoder = Encoder(ModelConfig(sizes.width, sizes.heads, sizes.layers, sizes.out, sizes.codes))
        encoder.load_state_dict(self.encoder.state_dict())
        torch.manual_seed(0)
        decoder = Decoder(DecoderConfig(32, 2, 2, chained=True))
        tokens = self.tokens if config.stage == "decoder" else None
        return ChainTrainer(config, self.data, encoder, self.codebook, decoder, tokens, **given)


@pytest.fixture
def made(data: PreparedSet, encoder: Encoder, codebook: Codebook) -> _Made:
    return _Made(data, encoder, codebook)


def _state(trainer: ChainTrainer) -> dict[str, Tensor]:
    state = {f"codebook.{name}": value.clone() for name, value in trainer.codebook._asdict().items()}
    for part, module in trainer.modules.items():
        state |= {f"{part}.{name}": value.clone() for name, value in module.state_dict().items()}
    for index, values in trainer.optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{name}": value.clone() for name, value in values.items()}
    return state


def _moved(before: dict[str, Tensor], after: dict[str, Tensor], prefix: str) -> list[str]:
    """Names of what changed, of what begins so."""
    return [name for name in before if name.startswith(prefix) and not torch.equal(before[name], after[name])]


def test_the_decoder_stage_learns(made: _Made) -> None:
    trainer = made(replace(SHORT, steps=90, head_steps=20, warmup=5, coarse_from=0.0, settling=30))
    told: list[ChainProgress] = []
    trainer.run(told.append)

    def mean(name: str, part: slice) -> float:
        return float(np.mean([getattr(progress, name) for progress in told[part]]))

    for name, share in (("loss", 0.8), ("step_loss", 0.8)):
        assert mean(name, slice(52, 60)) < share * mean(name, slice(0, 8)), name
    assert mean("reach", slice(52, 60)) < mean("reach", slice(0, 8))
    assert mean("confidence", slice(-8, None)) < 0.93 * mean("confidence", slice(60, 68))
    assert [progress.step for progress in told] == list(range(1, 91))


def test_the_head_begins_with_what_each_token_tells(made: _Made) -> None:
    """Before any step, the head has learnt from the tokens alone how the chain goes on."""
    first = []
    for steps in (0, 60):
        told: list[ChainProgress] = []
        made(replace(SHORT, steps=1, head_steps=steps, settling=0)).run(told.append)
        first.append(told[0].step_loss)
    assert first[1] < 0.9 * first[0]


def test_the_decoder_stage_moves_the_decoder_alone(made: _Made) -> None:
    trainer = made(SHORT)
    encoder = {name: value.clone() for name, value in trainer.encoder.state_dict().items()}
    before = _state(trainer)
    trainer.run(lambda _: None)
    after = _state(trainer)
    assert {name.split(".")[1] for name in _moved(before, after, "decoder.")} == {
        *("embed", "decoder_stack", "affine_output_projection", "pairwise_classification_head", "plddt_head")
    }
    assert _moved(before, after, "codebook.") == []
    for name, value in trainer.encoder.state_dict().items():
        assert torch.equal(value, encoder[name]), name


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_in_the_joint_stage_all_move(estimator: Any, made: _Made) -> None:
    # Without the pull towards the codes: what moves the encoder comes from the decoder.
    config = replace(SHORT, stage="joint", estimator=estimator, weights=LossWeights(commitment=0.0))
    trainer = made(config)
    before = _state(trainer)
    told: list[ChainProgress] = []
    trainer.run(told.append)
    after = _state(trainer)
    for part in ("encoder.", "decoder.", "lift.", "codebook."):
        assert len(_moved(before, after, part)) > 1, part
    assert "encoder.pre_vq_proj.weight" in _moved(before, after, "encoder.")
    assert all(progress.commitment > 0 and progress.perplexity > 1 for progress in told[:6])
    assert sum(progress.replaced for progress in told) > 0


def test_after_the_joint_stage_token_ids_tell_what_vectors_told(made: _Made) -> None:
    trainer = made(replace(SHORT, stage="joint"))
    trainer.run(lambda _: None)
    embedding = trainer.decoder.embed.weight.detach().clone()
    trainer.finish()
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    with torch.no_grad():
        ends = trainer.decoder.embed(torch.tensor([[BOS, EOS]]))
        vectors = trainer.code_projection(trainer.codebook.embeddings[tokens])
        read = torch.cat([ends[:, :1], vectors, ends[:, 1:]], 1)
        ids = torch.cat([torch.tensor([[BOS]]), tokens, torch.tensor([[EOS]])], 1)
        expected, found = (
            trainer.decoder.rigids(trainer.decoder.states(x)) for x in (read, trainer.decoder.embed(ids))
        )
    torch.testing.assert_close(found, expected)
    # Nothing but the codes' rows is written.
    assert torch.equal(trainer.decoder.embed.weight[16:], embedding[16:])
    assert not torch.equal(trainer.decoder.embed.weight[:16], embedding[:16])


def test_a_joint_stage_begins_with_what_the_decoder_knows(made: _Made, codebook: Codebook) -> None:
    """Sixteen codes of eight dimensions: the map cannot give each its own embedding, but those that start gave."""
    trainer = made(replace(SHORT, stage="joint"))
    with torch.no_grad():
        given = trainer.code_projection(codebook.embeddings)
    apart = (given - trainer.decoder.embed.weight[:16]).norm() / trainer.decoder.embed.weight[:16].norm()
    assert apart < 0.1


@pytest.mark.parametrize("stage", ["decoder", "joint"])
@pytest.mark.parametrize("cut", [1, 5])
def test_resumed_is_bit_identical_to_unbroken(stage: Stage, cut: int, made: _Made, tmp_path: Path) -> None:
    config = replace(SHORT, stage=stage, weights=LossWeights(binned=0.1, inverse_folding=0.1))
    told: list[ChainProgress] = []
    unbroken = made(config)
    unbroken.run(told.append)
    first = made(config)

    def stop(progress: ChainProgress) -> None:
        if progress.step == cut:
            checkpoint.save(first, tmp_path)
            raise _Cut

    with pytest.raises(_Cut):
        first.run(stop)
    second = made(config)
    checkpoint.restore(second, tmp_path)
    torch.manual_seed(99)  # nothing may hang on the global generator
    retold: list[ChainProgress] = []
    second.run(retold.append)
    assert retold == told[cut:]
    expected, found = _state(unbroken), _state(second)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("stage", ["decoder", "joint"])
def test_losses_that_weigh_nothing_are_left_out(stage: Stage, made: _Made) -> None:
    weights = LossWeights(step=0, reach=0, distance=1, direction=0, confidence=0, commitment=0)
    trainer = made(replace(SHORT, stage=stage, weights=weights, coarse_from=0.0, settling=0, weight_decay=0.0))
    before = _state(trainer)
    told: list[ChainProgress] = []
    trainer.run(told.append)
    for progress in told:
        assert progress.distance > 0
        assert progress.loss == pytest.approx(progress.distance)
        for name in ("step_loss", "reach", "direction", "binned", "inverse_folding", "confidence"):
            assert getattr(progress, name) == 0
    after = _state(trainer)
    for part in ("inverse.", "decoder.pairwise_classification_head.", "decoder.plddt_head."):
        assert _moved(before, after, part) == []


def test_binned_and_inverse_folding_losses_can_be_switched_on(made: _Made) -> None:
    weights = LossWeights(binned=2.0, inverse_folding=3.0, step=0, reach=0, distance=0, direction=0, confidence=0)
    trainer = made(replace(SHORT, steps=25, weights=weights, settling=0))
    before = _state(trainer)
    told: list[ChainProgress] = []
    trainer.run(told.append)
    for progress in told:
        assert progress.loss == pytest.approx(2 * progress.binned + 3 * progress.inverse_folding, rel=1e-5)
    # All residues of the set are alanines, which is soon learnt.
    assert told[-1].inverse_folding < 0.5 * told[0].inverse_folding
    assert told[-1].binned < told[0].binned
    after = _state(trainer)
    assert len(_moved(before, after, "inverse.")) == 2
    assert len(_moved(before, after, "decoder.pairwise_classification_head.")) > 2


def test_losses_begin_and_end_when_they_should(made: _Made) -> None:
    told: list[ChainProgress] = []
    made(SHORT).run(told.append)
    coarse = [False] * 2 + [True] * 4 + [False] * 2
    assert [progress.reach != 0 for progress in told] == coarse
    assert [progress.distance > 0 for progress in told] == coarse
    assert [progress.direction > 0 for progress in told] == coarse
    assert [progress.step_loss > 0 for progress in told] == [True] * 6 + [False] * 2
    assert [progress.confidence > 0 for progress in told] == [False] * 2 + [True] * 6


def test_confidence_settles_on_whole_chains(made: _Made, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    drawn = ChainBatches.batch

    def batch(self: ChainBatches, step: int, crop: int) -> ChainBatch:
        result = drawn(self, step, crop)
        if step < SHORT.steps:  # one more is drawn ahead
            lengths.append(result.tokens.shape[1])
        return result

    monkeypatch.setattr(ChainBatches, "batch", batch)
    made(replace(SHORT, crop=16)).run(lambda _: None)
    shortest = int(np.bincount(made.data.chain).min())
    assert max(lengths[:6]) <= 16 < shortest
    assert min(lengths[6:]) >= shortest


@pytest.mark.parametrize("stage", ["decoder", "joint"])
def test_all_but_the_heads_of_confidence_rests_while_they_settle(made: _Made, stage: Stage) -> None:
    trainer = made(replace(SHORT, stage=stage))
    seen: list[dict[str, Tensor]] = []
    trainer.run(lambda _: seen.append(_state(trainer)))
    moved = {name.rsplit(".", 2)[0] for name in _moved(seen[5], seen[7], "")}
    assert {name.split(".")[1] for name in moved if not name.startswith("optimizer")} == {
        "pairwise_classification_head",
        "plddt_head",
    }


def test_tokens_are_those_of_the_nearest_codes_and_the_frameless_have_theirs(made: _Made) -> None:
    with torch.no_grad():
        z = made.encoder(*(torch.from_numpy(part) for part in made.data.rows(slice(None))))
        frameless = made.encoder.without_frame()[None]
    there = made.data.shape.frames.exists
    assert np.array_equal(made.tokens[there], torch.cdist(z, made.codebook.embeddings).argmin(1).numpy())
    assert (made.tokens[~there] == int(torch.cdist(frameless, made.codebook.embeddings).argmin())).all()
    assert (~there).sum() == 1


@pytest.mark.parametrize("change", ["config", "decoder", "codebook", "data"])
def test_a_checkpoint_of_another_training_is_refused(change: str, made: _Made, tmp_path: Path) -> None:
    checkpoint.save(made(SHORT), tmp_path)
    config, data, codebook, decoder = SHORT, made.data, made.codebook, Decoder(DecoderConfig(32, 2, 2, chained=True))
    if change == "config":
        config = replace(SHORT, weights=LossWeights(step=1.0))
    elif change == "decoder":
        decoder = Decoder(DecoderConfig(32, 4, 2, chained=True))
    elif change == "codebook":
        codebook = codebook._replace(embeddings=codebook.embeddings + 1)
    elif change == "data":
        data = replace(data, backbone=data.backbone + 1)
    other = ChainTrainer(config, data, made.encoder, codebook, decoder, made.tokens)
    with pytest.raises(CheckpointMismatch, match=f": {change} differ"):
        checkpoint.restore(other, tmp_path)


def test_tokens_belong_to_the_decoder_stage_alone(made: _Made) -> None:
    decoder = Decoder(DecoderConfig(32, 2, 2))
    for config, tokens in ((SHORT, None), (replace(SHORT, stage="joint"), made.tokens)):
        with pytest.raises(ValueError, match="the decoder stage needs the data's tokens"):
            ChainTrainer(config, made.data, made.encoder, made.codebook, decoder, tokens)
