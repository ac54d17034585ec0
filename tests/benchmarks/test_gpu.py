"""The benchmark of GPUs, on a CPU and with an encoder that is small: its parts run, and it keeps to its time."""

import pytest
import torch

from benchmarks.speed.gpu import Clock, Sized, main, rates, tokens
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.sizes import ModelConfig

CONFIG = ModelConfig(width=32, heads=2, layers=2, out=8)


@pytest.fixture(scope="module")
def size() -> Sized:
    torch.manual_seed(0)
    return Sized("small", Encoder(CONFIG).eval(), torch.randn(CONFIG.codes, CONFIG.out), 256)


def test_tokens_and_rates(size: Sized) -> None:
    clock = Clock(5)
    found = tokens(size, "cpu", 100, clock)
    assert [row[:4] for row in found if row[1] == "float32"] == [["small", "float32", 100, 100.0]]
    assert {row[1] for row in found} == {"float32", "bf16"}
    timed = rates(size, "cpu", 1, compiled=False, clock=clock)
    assert {row[1] for row in timed} == {"float32", "bf16"}
    assert all(number > 0 for row in timed for number in row[2:])
    assert not clock.skipped


def test_what_no_time_is_left_for_is_named(size: Sized) -> None:
    clock = Clock(0)
    assert tokens(size, "cpu", 100, clock) == []
    assert clock.skipped == [f"tokens, small, {precision}" for precision in ("float32", "tf32", "bf16")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu() -> None:
    with pytest.raises(SystemExit, match="no GPU"):
        main(device="cuda")
