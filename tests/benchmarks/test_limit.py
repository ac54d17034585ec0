"""The products that the limit is counted from are those that the encoder computes."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from benchmarks.speed.limit import product_passes, products, real
from foldmint_tokenizer.cpu.fast_encoder import FastEncoder, Workspace
from foldmint_tokenizer.cpu.weights import Products
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.sizes import ModelConfig


class Counted(TorchFunctionMode):
    """Adds up the multiplications and additions of products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        name = getattr(function, "__name__", "")
        if name in ("mm", "addmm", "addmm_"):
            left, right = args[-2:]
            self.operations += 2 * left.shape[0] * left.shape[1] * right.shape[1]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_encoder_computes_these_and_no_others(layers: int) -> None:
    config = ModelConfig(width=64, heads=16, layers=layers, out=16)
    encoder = FastEncoder(Encoder(config), Products.TORCH)  # by torch's functions, which are counted here
    rows = real(40)
    with Counted() as counted:
        encoder(rows, Workspace())
    *needed, _quantization = products(config)
    assert counted.operations == 40 * sum(one.operations for one in needed)


def test_the_products_alone_are_as_many() -> None:
    config = ModelConfig(width=64, heads=8, layers=2, out=16)
    needed = products(config)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = product_passes(needed, Engine(Encoder(config)), 300)
        with Counted() as counted:
            alone()
    finally:
        torch.set_num_threads(before)
    assert counted.operations == 300 * sum(one.operations for one in needed)
