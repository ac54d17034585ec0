"""The wheel holds what an installed Foldmint needs: all packages, the contract, and the default model."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from helpers.support import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("foldmint-*.whl")
    return path


def test_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("foldmint", "foldmint_tokenizer", "foldmint_server", "foldmint_client", "foldmint_maintenance"):
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= names
    assert {"foldmint/v1/tokenizer.proto", "foldmint/v1/tokenizer_pb2.py", "foldmint/v1/tokenizer_pb2_grpc.py"} <= names
    default = "foldmint_tokenizer/default"
    for file in (
        "model.json",
        "encoder.safetensors",
        "decoder.safetensors",
        "ACTIVE",
        "codebooks/000001/codebook.safetensors",
    ):
        assert f"{default}/{file}" in names
    assert {"foldmint_server/web/dashboard/static/index.html", "foldmint_server/web/dashboard/static/main.js"} <= names
    assert not any("test" in name or name.endswith(".pyc") for name in names)


def test_size(wheel: Path) -> None:
    assert wheel.stat().st_size < 40_000_000
