"""Tokens of a whole set are computed once, and never taken for another's."""

from pathlib import Path

import numpy as np
import pytest

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_maintenance.training import latents
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that tokens are computed."""
    calls: list[int] = []
    computed = latents.tokens_of

    def tokens_of(*given: object) -> object:
        calls.append(len(calls))
        return computed(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(latents, "tokens_of", tokens_of)
    return calls


def test_tokens_are_kept(
    tmp_path: Path, encoder: Encoder, codebook: Codebook, data: PreparedSet, counted: list[int]
) -> None:
    file = tmp_path / "new" / "tokens.safetensors"
    first = latents.kept_tokens(file, encoder, codebook, data, ALONE, "cpu")
    again = latents.kept_tokens(file, encoder, codebook, data, ALONE, "cpu")
    assert first.dtype == again.dtype == np.int64
    np.testing.assert_array_equal(first, again)
    assert len(counted) == 1


@pytest.mark.parametrize("change", ["encoder", "codebook", "data", "damaged"])
def test_tokens_of_something_else_are_computed_anew(
    change: str, tmp_path: Path, encoder: Encoder, codebook: Codebook, data: PreparedSet, counted: list[int]
) -> None:
    file = tmp_path / "tokens.safetensors"
    latents.kept_tokens(file, encoder, codebook, data, ALONE, "cpu")
    if change == "encoder":
        encoder.pre_vq_proj.bias.data[0] += 1
    elif change == "codebook":
        codebook = codebook._replace(embeddings=codebook.embeddings.flip(0))
    elif change == "data":
        data.backbone[0] += 1
    else:
        file.write_bytes(file.read_bytes()[:40])
    found = latents.kept_tokens(file, encoder, codebook, data, ALONE, "cpu")
    np.testing.assert_array_equal(found, latents.tokens_of(encoder, codebook, data, ALONE, "cpu"))
    assert len(counted) == 3
