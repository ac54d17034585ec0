"""The short chains that the tests of motions train on."""

from pathlib import Path

import pytest

from foldmint_maintenance.datasets.records import PreparedSet, Record, prepared, write_parquet


@pytest.fixture(scope="module")
def records(chains: list[Record]) -> list[Record]:
    return [chain for chain in chains if len(chain.sequence) < 150][:20]


@pytest.fixture(scope="module")
def parquet(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "set.parquet"
    write_parquet(records, path)
    return path


@pytest.fixture(scope="module")
def small(records: list[Record]) -> PreparedSet:
    return prepared(records)
