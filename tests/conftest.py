"""Fixtures of all tests: real structures and a real server."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_maintenance.corpus import Record, read_parquet
from support import DATA, ROOT, RunningServer, missing, running_server, stub_of


@pytest.fixture(scope="session")
def data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def chains() -> list[Record]:
    """Real chains, about 20,000 residues."""
    return list(read_parquet(DATA / "chains.parquet"))


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """A server with the embedded default model, shared by tests that do not count what it did."""
    with running_server() as running:
        yield running


@pytest.fixture(scope="session")
def stub(server: RunningServer) -> Iterator[rpc.TokenizerServiceStub]:
    with stub_of(server) as one:
        yield one


@pytest.fixture(scope="session")
def reference_class() -> Iterator[Any]:
    """ESM's own `StructureTokenEncoder`."""
    folder = ROOT / ".reference"
    if not (folder / "esm").is_dir():
        missing("the reference, esm==3.2.1.post1,", "`make reference` installs it")
    sys.path.append(str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from esm.models.vqvae import StructureTokenEncoder

        yield StructureTokenEncoder
    sys.path.remove(str(folder))
