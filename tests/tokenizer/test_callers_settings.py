"""Models in a process whose own settings of torch are others: results are the same."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foldmint_tokenizer import Assignment, StructureDetokenizer, StructureTokenizer


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    """As `torch.set_default_device`, which stays on for a thread."""
    with torch.device(name):
        yield


def results(path: Path) -> list[NDArray[Any]]:
    """Tokens, distances, coordinates and confidences, of models that are loaded now."""
    tokenizer = StructureTokenizer.load()
    (alone,) = tokenizer.tokenize(path, distances=True)
    (tracked,) = tokenizer.tokenize(path, assignment=Assignment.TRACKING, first_frames=True)
    decoded = StructureDetokenizer.load().detokenize(alone.tokens, pae=True)
    assert alone.distances is not None
    assert decoded.pae is not None
    (chain,) = decoded.chains
    return [alone.tokens, alone.distances, tracked.tokens, chain.coordinates, chain.plddt, decoded.pae]


@pytest.fixture(scope="module")
def expected(data: Path) -> list[NDArray[Any]]:
    return results(data / "1a8o.cif")


@pytest.mark.parametrize(
    "setting",
    [
        lambda: default_dtype(torch.float64),
        lambda: default_dtype(torch.bfloat16),
        lambda: default_device("meta"),
        lambda: torch.autocast("cpu", torch.bfloat16),
        torch.inference_mode,
        lambda: np.errstate(all="raise"),
    ],
    ids=["float64", "bfloat16", "device", "autocast", "inference mode", "NumPy's errors"],
)
def test_results_are_the_same(
    setting: Callable[[], AbstractContextManager[object]], data: Path, expected: list[NDArray[Any]]
) -> None:
    with setting():
        found = results(data / "1a8o.cif")
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
