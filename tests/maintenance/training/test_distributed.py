"""Two processes that share every batch train what one alone would."""

import csv
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foldmint_maintenance.datasets.records import Record, write_parquet
from foldmint_maintenance.distributed.process_group import ALONE, ProcessGroup
from foldmint_maintenance.training.job import TrainJob, train
from foldmint_maintenance.training.recipe import read_recipe
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.store.model_store import load_model
from helpers.distributed import distributed_steps
from helpers.distributed.torchrun import rank_of, torchrun, waited

pytestmark = pytest.mark.slow


def _rows(log: Path) -> list[int]:
    if not log.exists():
        return []
    with log.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["seconds"]]


def test_two_processes_end_where_one_does(model: Model, records: list[Record], tmp_path: Path) -> None:
    # Half of the chains have holes: shares of a batch hold more residues or fewer, and uneven pairs of them.
    for record in records[:3]:
        record.coordinates[3::5] = np.nan
    parquet = tmp_path / "holes.parquet"
    write_parquet(records, parquet)
    process = torchrun(distributed_steps.__file__, parquet, tmp_path / "a-model", tmp_path)
    expected = distributed_steps.states(parquet, tmp_path / "a-model", ALONE)
    status, _, err = waited(process)
    assert status == 0, err
    assert expected.keys() == {"set", "codes", "joint", "decoder"}
    for training, alone in expected.items():
        first, second = (load_file(tmp_path / f"{training}.{rank}.safetensors") for rank in (0, 1))
        assert alone.keys() == first.keys() == second.keys()
        for name, value in alone.items():
            assert torch.equal(first[name], second[name]), f"{training}: {name}"
            # Rounding may put a residue's lDDT into the next bin: the head that is to tell it may differ more, and with
            # it the figures told. Of the others a single weight may: Adam makes a step of any gradient, be it nothing
            # but rounding.
            bound = 0.03 if name == "told" else 2e-3 if "plddt_head" in name else 1e-5
            apart = float((first[name] - value).double().square().mean().sqrt())
            assert apart < bound, f"{training}: {name} is {apart} off"
    for training in ("codes", "joint"):
        assert expected[training]["told"][:, -1].sum() > 0, "no code was replaced"
    for rank in (0, 1):
        found = {name: value.tolist() for name, value in load_file(tmp_path / f"group.{rank}.safetensors").items()}
        assert found == {
            "summed": [3.0, 5.0],
            # A share of a loss: the mean of both, (1 + 2) / 3 and (2 + 3) / 3, is the mean over the whole.
            "mean": pytest.approx([2 * (1.0 + rank) / 3, 2 * (2.0 + rank) / 3]),
            "gradient": [1.5, 2.5],
            "joined": [[1.0, 2.0], *[[2.0, 3.0]] * 3],
            "first": [1.0, 2.0],
            "unused": True,
        }


def test_a_signal_to_one_process_stops_both_and_the_same_command_goes_on(
    parquet: Path, tmp_path: Path, recipe_file: Path
) -> None:
    settings = ["codes.steps=60", "joint_stage.learning_rate=2e-4", "decoder_stage.learning_rate=2e-4"]
    out = tmp_path / "job"
    command: list[str | Path] = [
        "-m",
        "foldmint_maintenance.cli",
        "train",
        "--data",
        parquet,
        "--out",
        out,
        "--recipe",
        recipe_file,
    ]
    command += [part for setting in settings for part in ("--set", setting)]
    command += ["--device", "cpu", "--threads", "1", "--checkpoint-every", "1000"]

    process = torchrun(*command)
    log = out / "codes" / "training" / "log.csv"
    while process.poll() is None and len(_rows(log)) < 10:
        time.sleep(0.02)
    second = rank_of(process, 1)
    assert second is not None
    os.kill(second, signal.SIGTERM)
    status, text, err = waited(process)
    assert status != 0
    done = _rows(log)[-1]
    assert 10 <= done < 60
    assert err.count(f"stopped after step {done}; the same command goes on from there") >= 1
    assert "the model is in" not in text
    assert (out / "codes" / "training" / "checkpoint.safetensors").exists()

    status, text, err = waited(torchrun(*command))
    assert status == 0, err
    assert text.count(f"going on after step {done}") == 1
    assert text.count("the model is in") == 1
    assert _rows(log) == list(range(1, 61))

    alone = TrainJob(parquet, tmp_path / "alone", read_recipe(recipe_file, settings))
    expected, found = train(alone, lambda *_: None, lambda _: None), load_model(out / "model")
    for was, made in zip(expected.codebook.codebook, found.codebook.codebook, strict=True):
        torch.testing.assert_close(made, was, rtol=1e-3, atol=1e-3)
    assert expected.decoder is not None
    assert found.decoder is not None
    for name, value in expected.decoder.state_dict().items():
        torch.testing.assert_close(found.decoder.state_dict()[name], value, rtol=1e-3, atol=1e-3)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    class OfThree(ProcessGroup):
        rank, size = 1, 3

    assert OfThree().even_slice(6) == slice(2, 4)
    with pytest.raises(ValueError, match="7 items do not divide evenly among 3 processes"):
        OfThree().even_slice(7)
