"""The engine on a CPU: threads that share its rows, precisions, and hostile chains."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_tokenizer.cpu.fast_encoder import FastEncoder, Workspace
from foldmint_tokenizer.engine import Engine, Precision
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.neighborhoods import Neighborhoods, build_geometry
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.store.model_store import load_model
from helpers.chains import RealChain
from helpers.encoders import CONFIGS, assert_close, encoder, plain


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
    """The nearest of the plain encoder's vectors, but where two codes are as near as float32 can tell."""
    model = load_model()
    embeddings = model.codebook.codebook.embeddings
    engine = Engine(model.encoder)
    total = different = 0
    for chain in chains:
        geometry = build_geometry(chain.coordinates, chain.residue_index)
        found = torch.from_numpy(engine.tokens(geometry, embeddings).codes)
        z = plain(model.encoder, geometry.rows(slice(None)))
        expected = torch.cdist(z.double(), embeddings.double()).argmin(1)
        apart = found != expected
        total += len(found)
        different += int(apart.sum())
        near, far = ((z[apart] - embeddings[codes[apart]]).norm(dim=1) for codes in (expected, found))
        assert (far - near < 1e-5 * z[apart].norm(dim=1)).all()
    print(f"{different} of {total} tokens differ")  # noqa: T201
    assert total > 20_000
    assert different <= 1e-4 * total
