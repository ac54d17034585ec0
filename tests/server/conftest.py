"""Fixtures of the server's tests: a store of several versions, and what each of them gives in process."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from foldmint_tokenizer import StructureTokenizer, backbone
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.model import DecoderRows
from foldmint_tokenizer.sizes import DecoderConfig
from foldmint_tokenizer.store.model_store import Store, create_store, load_model
from helpers.chains import RealChain

VERSIONS = 8


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the default model's encoder, a small decoder and versions 000001 to 000008, the first in use.

    Each has the default's vectors in an order of its own, so that no residue has the same code in two of them, but by
    chance; the decoder reads something else of the first thousand codes of each.
    """
    torch.manual_seed(0)
    model, path = load_model(), tmp_path_factory.mktemp("versions")
    codebook = model.codebook.codebook
    decoder = Decoder(DecoderConfig(64, 4, 1, chained=True))
    create_store(path, name="versions", encoder=model.encoder, codebook=codebook, decoder=decoder, about={})
    store = Store(path)
    for number in range(2, VERSIONS + 1):
        order = torch.randperm(len(codebook.N), generator=torch.Generator().manual_seed(number))
        rows = DecoderRows(torch.arange(1000), torch.randn(1000, 64))
        mixed = Codebook(*(part[order] for part in codebook))
        store.publish(mixed, parent=f"{number - 1:06d}", decoder_rows=rows, about={"seed": number})
    return path


@pytest.fixture(scope="module")
def versions_copy(versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store, for tests of a module that change it."""
    path = tmp_path_factory.mktemp("copy") / "store"
    shutil.copytree(versions, path)
    return path


@pytest.fixture
def own_versions(versions: Path, tmp_path: Path) -> Path:
    """The same store, for a test that changes it."""
    path = tmp_path / "own-versions"
    shutil.copytree(versions, path)
    return path


@pytest.fixture(scope="session")
def short(chains: list[RealChain]) -> list[RealChain]:
    """The five shortest of the real chains, 312 residues."""
    return sorted(chains, key=lambda chain: len(chain.sequence))[:5]


@pytest.fixture(scope="session")
def in_process(versions: Path, short: list[RealChain]) -> Callable[[str], list[list[int]]]:
    """What a version gives in process for each of the short chains."""
    known: dict[str, list[list[int]]] = {}

    def tokens(version: str) -> list[list[int]]:
        if version not in known:
            tokenizer = StructureTokenizer(Store(versions).load(version))
            known[version] = [
                tokenizer.tokenize(backbone(chain.coordinates, chain.residue_index))[0].tokens.tolist()
                for chain in short
            ]
        return known[version]

    return tokens
