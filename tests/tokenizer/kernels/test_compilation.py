"""Compiled functions where their results can be kept, and where they cannot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import foldmint_tokenizer

CALL = """
import numpy as np
import foldmint_tokenizer.kernels.encoder as kernels
up = np.ones(32, np.float32)
kernels.gate(up, np.zeros(32, np.float32))
assert abs(up[0] - 1 / (1 + np.exp(-1))) < 1e-6
print(kernels.__file__, *kernels.gate.stats.cache_hits.values())
"""

WARM_UP = """
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.kernels import encoder, geometry, layers
from foldmint_tokenizer.kernels.products import sgemm_address
from foldmint_tokenizer.neighborhoods import build_geometry
from foldmint_tokenizer.store.model_store import load_model
import numpy as np

def compiled():
    parts = (encoder.attend, encoder.gate, encoder.add_and_norm)
    whole = (layers.project, layers.attend_and_feed)
    functions = (geometry.frames, geometry.nearest, geometry.neighborhoods, *(whole if sgemm_address() else parts))
    return [len(one.signatures) for one in functions]

model = load_model()
engine, embeddings = Engine(model.encoder), model.codebook.codebook.embeddings
engine.warm_up(embeddings)
before = compiled()
coordinates = np.random.default_rng(0).normal(0, 10, (70, 3, 3)).astype(np.float32)
engine.tokens(build_geometry(coordinates, np.arange(70)), embeddings)
assert compiled() == before == [1] * len(before), (before, compiled())
"""


def run(package: Path) -> tuple[Path, list[str]]:
    """The module that a process with this copy of the package ran, and what it took from a cache."""
    environment = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "PYTHONPATH")}
    environment |= {"PYTHONPATH": str(package.parent), "XDG_CACHE_HOME": os.devnull, "HOME": os.devnull}
    done = subprocess.run(
        [sys.executable, "-B", "-c", CALL], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    file, *hits = done.stdout.split()
    return Path(file), hits


def copied(tmp_path: Path) -> Path:
    """A copy of the package without anything that was compiled before."""
    target = tmp_path / "foldmint_tokenizer"
    assert foldmint_tokenizer.__file__ is not None
    source = Path(foldmint_tokenizer.__file__).parent
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_a_later_process_does_not_compile_again(tmp_path: Path) -> None:
    package = copied(tmp_path)
    file, hits = run(package)
    assert file.is_relative_to(package)
    assert hits == []
    assert run(package)[1] == ["1"]


def test_no_folder_for_a_cache(tmp_path: Path) -> None:
    package = copied(tmp_path)
    # Not a folder, so that nobody can write into it, not even root.
    (package / "kernels" / "__pycache__").write_text("")
    file, hits = run(package)
    assert file.is_relative_to(package)
    assert hits == []


def test_nothing_is_compiled_after_the_warm_up() -> None:
    done = subprocess.run([sys.executable, "-c", WARM_UP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
