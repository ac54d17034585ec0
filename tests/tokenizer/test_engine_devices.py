"""What runs on devices other than a CPU, as far as a CPU shows it: `python -m benchmarks gpu` is for the rest."""

import numpy as np
import pytest
import torch

from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.engine import Engine, Precision
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.neighborhoods import NEIGHBORS, Geometry, build_geometry
from foldmint_tokenizer.sizes import ModelConfig
from helpers.chains import RealChain

CONFIG = ModelConfig(width=64, heads=4, layers=2, out=16)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(CONFIG).eval()


@pytest.fixture(scope="module")
def codes() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(CONFIG.codes, CONFIG.out)


@pytest.fixture(scope="module")
def geometry(chains: list[RealChain]) -> Geometry:
    longest = max(chains, key=lambda chain: len(chain.coordinates))
    return build_geometry(longest.coordinates, longest.residue_index)


@pytest.fixture
def overlapping(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Compiled for a CPU in bfloat16, which takes the way of other devices; but not compiled, which takes a minute."""
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    return Engine(encoder, "cpu", precision=Precision.BF16, compiled=True)


def test_nothing_is_asked_back_from_the_device_while_it_computes() -> None:
    """Tensors without values have no answer: whatever needs one would make the host wait for the device."""
    with torch.device("meta"), torch.inference_mode():
        rows = (
            torch.empty(9, NEIGHBORS, 3, 3),
            torch.empty(9, NEIGHBORS, 3),
            torch.empty(9, NEIGHBORS, dtype=torch.int64),
            torch.empty(9, NEIGHBORS, dtype=torch.bool),
        )
        z = Encoder(CONFIG).eval()(*rows)
    assert z.shape == (9, CONFIG.out)


def test_the_encoder_is_one_graph(encoder: Encoder, geometry: Geometry) -> None:
    """As torch.compile needs it to record it for a GPU; a break would raise."""
    rows = [torch.from_numpy(column) for column in geometry.rows(slice(0, 64))]
    graph = torch.compile(encoder, fullgraph=True, dynamic=False, backend="aot_eager")
    with torch.inference_mode():
        torch.testing.assert_close(graph(*rows), encoder(*rows))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_steps_that_overlap_give_what_single_ones_give(
    overlapping: Engine, codes: torch.Tensor, geometry: Geometry, steps: int
) -> None:
    engine = overlapping
    engine.step_rows = -(-len(geometry.queries) // steps)
    found, vectors = engine.tokens_and_vectors(geometry, codes)
    z = torch.cat(
        [
            engine.vectors(geometry.rows(slice(start, start + engine.step_rows)))
            for start in range(0, len(geometry.queries), engine.step_rows)
        ]
    )
    expected = engine.quantize(z, codes)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.distances, expected.distances)
    np.testing.assert_array_equal(vectors, z.numpy())
    assert engine.tokens_and_vectors(geometry, codes, keep=False)[1].shape == (len(geometry.queries), 0)


def test_a_vector_that_is_not_finite_is_reported(overlapping: Engine, codes: torch.Tensor, geometry: Geometry) -> None:
    overlapping.step_rows = 32
    with pytest.raises(ModelError, match="not finite"):
        overlapping.tokens(
            geometry._replace(frames=geometry.frames._replace(origin=geometry.frames.origin * np.nan)), codes
        )
