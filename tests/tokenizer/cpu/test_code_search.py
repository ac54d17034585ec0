"""Nearest-code search on a CPU: the same by tiles and without, whatever became of the codes since."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from foldmint_tokenizer.cpu.code_search import CodeSearch


@pytest.fixture(params=[True, False], ids=["by tiles", "by products"])
def search(request: pytest.FixtureRequest) -> CodeSearch:
    return CodeSearch(by_tiles=request.param)


def nearest(z: Tensor, embeddings: Tensor) -> list[int]:
    return torch.cdist(z.double(), embeddings.double()).argmin(1).tolist()


def test_the_nearest(search: CodeSearch) -> None:
    torch.manual_seed(0)
    z, embeddings = torch.randn(300, 16), torch.randn(700, 16)
    codes, distances = search(z, embeddings)
    assert codes.tolist() == nearest(z, embeddings)
    torch.testing.assert_close(torch.from_numpy(distances), (z - embeddings[codes]).norm(dim=1))


def test_codes_that_were_changed(search: CodeSearch) -> None:
    torch.manual_seed(0)
    z, embeddings = torch.randn(100, 16), torch.randn(64, 16)
    search(z, embeddings)
    embeddings.mul_(0.5)
    assert search(z, embeddings)[0].tolist() == nearest(z, embeddings)
    embeddings[3] = z[0]
    assert search(z, embeddings)[0][0] == 3


def test_codes_of_inference_mode_are_not_taken_for_those_before(search: CodeSearch) -> None:
    """Changes of such tensors are not counted."""
    torch.manual_seed(0)
    z = torch.randn(100, 16)
    with torch.inference_mode():
        embeddings = torch.randn(64, 16)
        search(z, embeddings)
        embeddings.mul_(0.5)
        assert search(z, embeddings)[0].tolist() == nearest(z, embeddings)


def test_other_types_and_layouts(search: CodeSearch) -> None:
    torch.manual_seed(0)
    z, embeddings = torch.randn(16, 100).t(), torch.randn(64, 16)
    assert search(z, embeddings)[0].tolist() == nearest(z, embeddings)
    half = embeddings.bfloat16()
    assert search(z, half)[0].tolist() == nearest(z, half)
    assert search(z.requires_grad_(), embeddings)[0].tolist() == nearest(z, embeddings)


def test_codes_that_nobody_needs_are_let_go(search: CodeSearch) -> None:
    embeddings = torch.randn(64, 16)
    search(torch.randn(10, 16), embeddings)
    gone = weakref.ref(embeddings)
    del embeddings
    gc.collect()
    assert gone() is None
    assert len(search._known) == 0


def test_threads_may_share_it(search: CodeSearch) -> None:
    torch.manual_seed(0)
    z, books = torch.randn(50, 16), [torch.randn(64, 16) for _ in range(5)]
    expected = [nearest(z, book) for book in books]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: search(z, books[number % 5])[0].tolist(), range(100)))
    assert found == [expected[number % 5] for number in range(100)]
