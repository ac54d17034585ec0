"""Fixtures of all tests: real structures and a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_maintenance.corpus import Record, read_parquet
from support import DATA, RunningServer, running_server, stub_of


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
