"""The nearest code: found as by looking at all, and never where a vector is not finite."""

import subprocess
import sys

import pytest
import torch

from foldmint_tokenizer.codebook import nearest_code


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 700])
def test_the_nearest_of_all(rows: int) -> None:
    torch.manual_seed(rows)
    z, embeddings = torch.randn(rows, 24), torch.randn(512, 24)
    codes, distances = nearest_code(z, embeddings)
    apart = (z[:, None].double() - embeddings[None].double()).norm(dim=2)
    assert codes.dtype == torch.int64
    # Where two are as near as float32 can tell, either will do.
    assert torch.allclose(apart.gather(1, codes[:, None])[:, 0], apart.amin(1), rtol=0, atol=1e-5)
    assert torch.allclose(distances.double(), apart.amin(1), rtol=0, atol=1e-5)


def test_what_is_not_finite_has_no_distance() -> None:
    z = torch.randn(3, 24)
    z[1, 5] = torch.nan
    z[2, 0] = torch.inf
    _, distances = nearest_code(z, torch.randn(16, 24))
    assert torch.isfinite(distances).tolist() == [True, False, False]


def test_gradients_flow_through_distances() -> None:
    z = torch.randn(3, 24, requires_grad=True)
    nearest_code(z, torch.randn(16, 24))[1].sum().backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert torch.allclose(z.grad.norm(dim=1), torch.ones(3))


def test_memory_does_not_grow_with_the_number_of_vectors() -> None:
    """All distances at once would take 16 KB a vector: 1.6 GB here."""
    program = """
import resource, torch
from foldmint_tokenizer.codebook import nearest_code
codes = torch.randn(4096, 16)
nearest_code(torch.randn(1000, 16), codes)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
nearest_code(torch.randn(100_000, 16), codes)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # KB
