"""The encoder optimized for CPUs against the plain one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from foldmint_tokenizer.cpu.fast_encoder import FastEncoder, Workspace
from foldmint_tokenizer.cpu.weights import Products, fastest_products
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.kernels.products import sgemm_address
from foldmint_tokenizer.kernels.vectors import LANES
from foldmint_tokenizer.neighborhoods import Neighborhoods, build_geometry, join_geometries
from foldmint_tokenizer.sizes import ModelConfig
from helpers.chains import RealChain
from helpers.encoders import CONFIGS, assert_close, encoder, plain


@pytest.mark.parametrize(
    ("name", "products"),
    [
        *((name, None) for name in CONFIGS),
        *((name, Products.TORCH) for name in CONFIGS),
        *((name, Products.TILES) for name, config in CONFIGS.items() if config.width % LANES == 0),
    ],
)
def test_equals_the_plain_encoder(name: str, products: Products | None, rows: Neighborhoods) -> None:
    """By the products that are fastest on this CPU, None, and by others."""
    assert not rows.exists.all()
    model = encoder(CONFIGS[name])
    assert_close(FastEncoder(model, products)(rows, Workspace()), plain(model, rows))


@pytest.mark.skipif(sgemm_address() is None, reason="torch's library does not export sgemm")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("count", [1, 17, 409])
def test_compiled_layers_give_the_same(config: ModelConfig, count: int, rows: Neighborhoods) -> None:
    """To the bit, with the products of the same library."""
    model, some = encoder(config), rows.part(0, count)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # with more, the BLAS may sum in another order
    try:
        whole, parts = (FastEncoder(model, by)(some, Workspace()) for by in (Products.BLAS, Products.TORCH))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("products", Products)
def test_no_rows(products: Products, rows: Neighborhoods) -> None:
    assert FastEncoder(encoder(CONFIGS["small"]), products)(rows.part(0, 0), Workspace()).shape == (0, 16)


@pytest.mark.parametrize("name", ["small", "three blocks"])
def test_by_tiles_a_row_is_the_same_in_any_batch(name: str, rows: Neighborhoods) -> None:
    fast = FastEncoder(encoder(CONFIGS[name]), Products.TILES)
    whole = fast(rows, Workspace())
    for start, stop in ((0, 1), (3, 5), (100, 177), (1, 408)):
        assert torch.equal(fast(rows.part(start, stop), Workspace()), whole[start:stop])


@pytest.mark.parametrize(
    ("width", "tiles", "products"),
    [
        (128, True, Products.TILES),
        (128, False, Products.BLAS),
        (120, True, Products.BLAS),
        (1024, True, Products.PACKED),
        (1024, False, Products.PACKED),
    ],
)
def test_which_products_are_fastest(
    monkeypatch: pytest.MonkeyPatch, width: int, tiles: bool, products: Products
) -> None:
    monkeypatch.setattr("foldmint_tokenizer.kernels.tiles.suits_this_cpu", lambda: tiles)
    assert fastest_products(ModelConfig(width, heads=8, layers=1, out=16)) is products


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records of how many rows the products with packed weights are."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        if "_linear_pointwise" in str(function):
            self.rows.add(args[0].shape[0])
        return function(*args, **(kwargs or {}))


def test_products_with_packed_weights_have_few_sizes(rows: Neighborhoods) -> None:
    """The library keeps code and memory for each size."""
    fast, sizes = FastEncoder(encoder(CONFIGS["wide"])), _Sizes()
    with sizes:
        for count in range(1, 33):
            assert fast(rows.part(0, count), Workspace()).shape == (count, 8)
    assert sizes.rows == {size for count in range(4, 33, 4) for size in (count, 16 * count)}


def test_no_memory_of_what_was_computed_before(rows: Neighborhoods) -> None:
    model = encoder(CONFIGS["small"])
    fast, work = FastEncoder(model), Workspace()
    expected = plain(model, rows)
    for start, stop in ((0, 300), (17, 18), (100, 400), (350, 409), (0, 300)):
        assert_close(fast(rows.part(start, stop), work), expected[start:stop])


class _RecordingWorkspace(Workspace):
    """Records the addresses of the memory that it hands out."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: set[int] = set()

    def array(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        array = super().array(name, *shape, dtype=dtype)
        self.memory.add(array.untyped_storage().data_ptr())
        return array


def test_memory_does_not_grow_with_the_rows_of_many_calls(rows: Neighborhoods) -> None:
    fast, work = FastEncoder(encoder(CONFIGS["small"])), _RecordingWorkspace()
    fast(rows, work)
    before = set(work.memory)
    fast(rows.part(0, 200), work)
    fast(rows, work)
    assert work.memory == before


def test_vectors_that_are_not_returned_take_no_memory(chains: list[RealChain]) -> None:
    model = Encoder(ModelConfig(width=16, heads=1, layers=1, out=2048, codes=8)).eval()
    engine = Engine(model, threads=2)
    geometry = join_geometries([build_geometry(chains[0].coordinates, chains[0].residue_index)] * 100)
    vectors_mb = len(geometry.queries) * 2048 * 4 / 1e6
    codes = torch.randn(8, 2048)
    engine.tokens(geometry._replace(queries=geometry.queries[:600], nearest=geometry.nearest[:600]), codes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _memory_mb("VmRSS")
    engine.tokens(geometry, codes)
    assert _memory_mb("VmHWM") - before < vectors_mb / 2


def _memory_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))


def test_layers_without_biases(rows: Neighborhoods) -> None:
    model = encoder(CONFIGS["small"])
    for block in model.transformer:
        for linear in (block.geom_attn.proj, block.geom_attn.out_proj, block.ffn[1], block.ffn[3]):
            assert isinstance(linear, nn.Linear)
            linear.register_parameter("bias", None)
    assert_close(FastEncoder(model)(rows, Workspace()), plain(model, rows))
