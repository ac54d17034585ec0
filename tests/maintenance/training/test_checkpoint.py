"""A training that is broken off and goes on ends as if it had never stopped."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.errors import CheckpointMismatch
from foldmint_maintenance.training import checkpoint
from foldmint_maintenance.training.config import TrainConfig
from foldmint_maintenance.training.encoder_trainer import Progress, Trainer
from foldmint_tokenizer.sizes import ModelConfig


class _Cut(Exception):
    pass


def _state(trainer: Trainer) -> dict[str, Tensor]:
    state = {f"encoder.{name}": value for name, value in trainer.encoder.state_dict().items()}
    state |= {f"predictor.{name}": value for name, value in trainer.predictor.state_dict().items()}
    state |= {f"codebook.{name}": value for name, value in trainer.codebook._asdict().items()}
    for index, values in trainer.optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    return state


# Before there is a codebook, just as it begins, while all moves, and while the codebook settles.
@pytest.mark.parametrize("cut", [1, 3, 5, 7])
def test_resumed_is_bit_identical_to_unbroken(
    cut: int, data: PreparedSet, sizes: ModelConfig, quick: TrainConfig, tmp_path: Path
) -> None:
    told: list[Progress] = []
    unbroken = Trainer(sizes, quick, data)
    unbroken.run(told.append)

    first = Trainer(sizes, quick, data)

    def stop(progress: Progress) -> None:
        if progress.step == cut:
            checkpoint.save(first, tmp_path)
            raise _Cut

    with pytest.raises(_Cut):
        first.run(stop)
    second = Trainer(sizes, quick, data)
    checkpoint.restore(second, tmp_path)
    assert second.step == cut
    torch.manual_seed(99)  # nothing may hang on the global generator
    retold: list[Progress] = []
    second.run(retold.append)

    assert retold == told[cut:]
    expected, found = _state(unbroken), _state(second)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_training_learns_the_windows_and_uses_several_codes(
    data: PreparedSet, sizes: ModelConfig, quick: TrainConfig
) -> None:
    trainer = Trainer(sizes, replace(quick, steps=60, unquantized=40, learning_rate=0.02), data)
    told: list[Progress] = []
    trainer.run(told.append)
    assert told[-1].window_error < 0.8 * told[0].window_error
    assert told[-1].perplexity > 4


def test_the_encoder_rests_while_the_codebook_settles(
    data: PreparedSet, sizes: ModelConfig, quick: TrainConfig
) -> None:
    trainer = Trainer(sizes, quick, data)
    seen: list[dict[str, Tensor]] = []
    trainer.run(lambda _: seen.append({name: value.clone() for name, value in _state(trainer).items()}))
    moving, resting, last = seen[4], seen[5], seen[7]
    for name, value in last.items():
        if name.startswith("encoder."):
            assert torch.equal(value, resting[name]), name
    weight = "encoder.pre_vq_proj.weight"
    assert not torch.equal(moving[weight], resting[weight])
    assert not torch.equal(resting["codebook.embeddings"], last["codebook.embeddings"])


@pytest.mark.parametrize("change", ["config", "model", "data"])
def test_a_checkpoint_of_another_training_is_refused(
    change: str, data: PreparedSet, sizes: ModelConfig, quick: TrainConfig, tmp_path: Path
) -> None:
    checkpoint.save(Trainer(sizes, quick, data), tmp_path)
    if change == "config":
        quick = replace(quick, decay=0.5)
    elif change == "model":
        sizes = replace(sizes, codes=8)
    elif change == "data":  # as much of it, and as many frames; one number differs
        index = data.shape.residue_index.copy()
        index[-1] += 1
        data = replace(data, shape=data.shape._replace(residue_index=index))
    with pytest.raises(CheckpointMismatch, match=change):
        checkpoint.restore(Trainer(sizes, quick, data), tmp_path)


@pytest.mark.parametrize("wrong", [{"steps": 5}, {"unquantized": 0}, {"batch": 0}, {"decay": 1.0}])
def test_settings_that_make_no_sense_are_refused(quick: TrainConfig, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        replace(quick, **wrong)  # type: ignore[arg-type]
