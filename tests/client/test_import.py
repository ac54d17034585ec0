"""The package is light: what it does not need is not imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import foldmint_client

HEAVY = ("torch", "scipy", "gemmi", "foldmint_tokenizer", "foldmint_server", "foldmint_maintenance")
ROOT = Path(__file__).parents[2]


def imported(statement: str) -> set[str]:
    roots = os.pathsep.join(str(ROOT / folder) for folder in ("protos", "client", "tokenizer", "server"))
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {**os.environ, "PYTHONPATH": roots}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())


def test_the_library_imports_nothing_of_the_server() -> None:
    assert not imported("from foldmint_client import *").intersection({*HEAVY, "pyarrow", "rich", "typer"})


@pytest.mark.parametrize("module", ["foldmint_client", "foldmint_client.cli.main"])
def test_importing_costs_next_to_nothing(module: str) -> None:
    assert not imported(f"import {module}").intersection({*HEAVY, "grpc", "numpy", "pyarrow", "rich"})


def test_every_public_name_is_there() -> None:
    for name in foldmint_client.__all__:
        assert getattr(foldmint_client, name) is not None
    assert set(foldmint_client.__all__) <= set(dir(foldmint_client))
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        _ = foldmint_client.Klient
