"""The encoder optimized for CPUs against the plain one, and the threads that share its rows."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.cpu_encoder import FastEncoder, Workspace
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.engine import Engine, Precision
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.kernels.products import sgemm_address
from foldmint_tokenizer.neighborhoods import Neighborhoods, build_geometry, concatenate, join_geometries
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.store.model_store import load_model
from helpers.chains import RealChain

CONFIGS = {
    "small": ModelConfig(width=64, heads=4, layers=2, out=16),
    "one block": ModelConfig(width=64, heads=4, layers=1, out=16),
    "three blocks": ModelConfig(width=48, heads=3, layers=3, out=8),
    "more heads than fit": ModelConfig(width=32, heads=70, layers=2, out=8),
    "wide": ModelConfig(width=520, heads=5, layers=2, out=8),
}


def encoder(config: ModelConfig) -> Encoder:
    """Random weights that leave nothing at zero or one, where a mistake would not show."""
    torch.manual_seed(0)
    made = Encoder(config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "scale_per_head" in name or "embedding" in name:
                parameter.normal_()
            elif "norm" in name or parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) / 4)
    return made


def plain(of: Encoder, rows: Neighborhoods) -> Tensor:
    with torch.no_grad():
        z: Tensor = of(*(torch.from_numpy(column) for column in rows))
        return z


@pytest.fixture(scope="module")
def rows(chains: list[RealChain]) -> Neighborhoods:
    shapes = [build_geometry(chain.coordinates, chain.residue_index) for chain in chains[:4]]
    short = build_geometry(chains[0].coordinates[:9], chains[0].residue_index[:9])  # has empty slots
    return concatenate([shape.rows(slice(0, 100)) for shape in [*shapes, short]])


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 2e-5 * float(expected.abs().max())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_equals_the_plain_encoder(config: ModelConfig, rows: Neighborhoods) -> None:
    assert not rows.exists.all()
    model = encoder(config)
    assert_close(FastEncoder(model)(rows, Workspace()), plain(model, rows))


@pytest.mark.skipif(sgemm_address() is None, reason="torch's library does not export sgemm")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("count", [1, 17, 409])
def test_faster_products_give_the_same(config: ModelConfig, count: int, rows: Neighborhoods) -> None:
    """To the bit where layers are compiled as a whole; packed weights, of wide encoders, sum in another order."""
    model, some = encoder(config), rows.part(0, count)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # with more, the BLAS may sum in another order
    try:
        whole, parts = (FastEncoder(model, by_torch=by_torch)(some, Workspace()) for by_torch in (False, True))
    finally:
        torch.set_num_threads(before)
    if config is CONFIGS["wide"]:
        assert_close(whole, parts)
    else:
        assert torch.equal(whole, parts)


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


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 31, 64, 409])
def test_threads_share_rows(rows: Neighborhoods, threads: int, count: int) -> None:
    model = encoder(CONFIGS["small"])
    some = rows.part(0, count)
    expected = plain(model, some) if count else torch.empty(0, 16)
    found = Engine(model, threads=threads).vectors(some)
    assert found.shape == expected.shape
    if count:
        assert_close(found, expected)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 40, 409])
def test_torch_does_not_split_operations(
    rows: Neighborhoods, threads: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not those of a few rows: its threads would wait for each other after each of many small operations."""
    used: list[int] = []
    compute = FastEncoder.__call__

    def recorded(self: FastEncoder, some: Neighborhoods, work: Workspace) -> Tensor:
        used.append(torch.get_num_threads())
        return compute(self, some, work)

    monkeypatch.setattr(FastEncoder, "__call__", recorded)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Engine(encoder(CONFIGS["small"]), threads=threads).vectors(rows.part(0, count))
    finally:
        torch.set_num_threads(before)
    assert set(used) == {1}


def test_threads_of_others_are_left_alone(rows: Neighborhoods) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Engine(encoder(CONFIGS["small"]), threads=2).vectors(rows)
        with ThreadPoolExecutor(1) as newer:
            assert newer.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_lanes_compute_alone_and_the_same(rows: Neighborhoods) -> None:
    model = encoder(CONFIGS["small"])
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        engine = Engine(model)
        lanes = engine.worker_engines()
        assert [lane.step_rows for lane in lanes] == [engine.step_rows // 3] * 3

        def computed(lane: Engine) -> tuple[torch.Tensor, int]:
            lane.bind_thread()
            return lane.vectors(rows), torch.get_num_threads()

        with ThreadPoolExecutor(3) as pool:
            results = list(pool.map(computed, lanes))
        with ThreadPoolExecutor(1) as newer:
            assert newer.submit(torch.get_num_threads).result() == 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    for z, threads in results:
        assert threads == 1
        assert_close(z, plain(model, rows))


def test_one_thread_is_one_lane() -> None:
    engine = Engine(encoder(CONFIGS["small"]), threads=1)
    assert engine.worker_engines() == [engine]


def test_an_error_in_a_thread_is_raised(rows: Neighborhoods) -> None:
    engine = Engine(encoder(CONFIGS["small"]), threads=2)
    bad = rows._replace(offset=np.full_like(rows.offset, 66))
    with pytest.raises(ValueError, match="an offset is not between 0 and 65"):
        engine.vectors(bad)
    assert len(engine.vectors(rows)) == len(rows.offset)


def test_weights_are_those_of_its_creation(rows: Neighborhoods) -> None:
    model = encoder(CONFIGS["small"])
    engine = Engine(model, threads=1)
    before = engine.vectors(rows)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(engine.vectors(rows), before)


def test_threads_end_with_their_engine(rows: Neighborhoods) -> None:
    engine = Engine(encoder(CONFIGS["small"]), threads=2)
    engine.vectors(rows)
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("encoder")]
    assert len(ours) >= 2
    mine = ours[-2:]
    del engine
    for thread in mine:
        thread.join(5)
    assert not any(thread.is_alive() for thread in mine)


def test_bfloat16_is_close_and_not_the_same(rows: Neighborhoods) -> None:
    model = encoder(CONFIGS["small"])
    expected = plain(model, rows)
    found = Engine(model, precision=Precision.BF16).vectors(rows)
    assert found.dtype == torch.float32
    apart = float((found - expected).norm() / expected.norm())
    assert 1e-4 < apart < 0.05


def test_a_precision_that_the_device_does_not_have() -> None:
    with pytest.raises(ModelError, match="tf32 needs a CUDA device"):
        Engine(encoder(CONFIGS["small"]), precision=Precision.TF32)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler, g++")
@pytest.mark.filterwarnings("ignore")  # of torch's own, while it compiles
def test_compiled_for_a_few_numbers_of_rows(rows: Neighborhoods) -> None:
    model = encoder(ModelConfig(width=8, heads=2, layers=1, out=4))
    engine = Engine(model, precision=Precision.BF16, compiled=True)
    eager = Engine(model, precision=Precision.BF16)
    torch._dynamo.utils.counters.clear()
    for count in (1, 63, 64):
        some = rows.part(0, count)
        found, expected = engine.vectors(some), eager.vectors(some)
        assert found.shape == expected.shape
        assert float((found - expected).norm() / expected.norm()) < 0.02
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def hostile(kind: str, chain: RealChain) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A chain as no crystallographer would have it."""
    random = np.random.default_rng(0)
    x, index = chain.coordinates.copy(), chain.residue_index
    match kind:
        case "missing atoms":
            x[random.random(x.shape[:2]) < 0.2] = np.nan
        case "one residue":
            x, index = x[:1], index[:1]
        case "two residues":
            x, index = x[:2], index[:2]
        case "residues in one place":
            x[10:60] = x[10]
        case "all residues in one place":
            x[:] = x[5]
        case "far from the origin":
            x += np.float32(9e5)
        case "numbers far apart":
            index = index * 40 * (-1) ** np.arange(len(index))
    return x, index


HOSTILE = (
    "missing atoms",
    "one residue",
    "two residues",
    "residues in one place",
    "all residues in one place",
    "far from the origin",
    "numbers far apart",
)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_chains(kind: str, chains: list[RealChain]) -> None:
    model = encoder(CONFIGS["small"])
    rows = build_geometry(*hostile(kind, chains[0])).rows(slice(None))
    assert len(rows.offset)
    assert_close(Engine(model, threads=1).vectors(rows), plain(model, rows))


def test_weights_that_are_not_finite_are_noticed(rows: Neighborhoods) -> None:
    for name in ("transformer.blocks.0.geom_attn.proj.weight", "transformer.blocks.1.ffn.1.bias", "pre_vq_proj.bias"):
        model = encoder(CONFIGS["small"])
        with torch.no_grad():
            model.get_parameter(name).view(-1)[-1] = torch.nan
        engine = Engine(model, threads=2)
        with pytest.raises(ModelError, match="not finite"):
            engine.quantize(engine.vectors(rows), torch.randn(64, 16))


def test_tokens_of_the_default_model(chains: list[RealChain]) -> None:
    """As by the plain encoder, but where two codes are as near as float32 can tell."""
    model = load_model()
    embeddings = model.codebook.codebook.embeddings
    engine = Engine(model.encoder)
    total = different = 0
    for chain in chains:
        geometry = build_geometry(chain.coordinates, chain.residue_index)
        found = torch.from_numpy(engine.tokens(geometry, embeddings).codes)
        z = plain(model.encoder, geometry.rows(slice(None)))
        expected = nearest_code(z, embeddings)[0]
        apart = found != expected
        total += len(found)
        different += int(apart.sum())
        near, far = ((z[apart] - embeddings[codes[apart]]).norm(dim=1) for codes in (expected, found))
        assert (far - near < 1e-5 * z[apart].norm(dim=1)).all()
    print(f"{different} of {total} tokens differ")  # noqa: T201
    assert total > 20_000
    assert different <= 1e-4 * total
