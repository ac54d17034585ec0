"""What does not need a heavy package does not import it."""

from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.shapes_only import shapes_only
from foldmint_tokenizer.sizes import ModelConfig
from helpers.fresh_imports import imported_by
from helpers.support import DATA

READ = f"""
from foldmint_tokenizer import read_structure
read_structure({str(DATA / "1a8o.cif")!r})
"""
TOKENIZE = f"""
from foldmint_tokenizer import StructureDetokenizer, StructureTokenizer
(chain,) = StructureTokenizer.load().tokenize({str(DATA / "1a8o.cif")!r}, assignment="anchored")
StructureDetokenizer.load().detokenize(chain.tokens)
"""


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not imported_by("import foldmint_tokenizer").intersection({"torch", "numpy", "numba", "gemmi", "scipy"})


def test_reading_a_structure_needs_neither_torch_nor_compiled_functions() -> None:
    assert not imported_by(READ).intersection({"torch", "numba", "scipy", "fsspec"})


def test_a_model_is_loaded_and_run_without_torchs_compiler() -> None:
    """It takes longer to import than all else that a server needs; a k-d tree is for long chains only."""
    found = imported_by(TOKENIZE)
    assert "torch" in found
    assert not found.intersection({"torch._dynamo", "torch._inductor", "sympy", "scipy.spatial", "scipy.ndimage"})


def test_modules_without_values_have_their_shapes() -> None:
    config = ModelConfig(width=32, heads=2, layers=2, out=16, codes=64)
    with shapes_only():
        empty = Encoder(config)
    assert all(value.is_meta for value in empty.state_dict().values())
    assert {name: value.shape for name, value in empty.state_dict().items()} == {
        name: value.shape for name, value in Encoder(config).state_dict().items()
    }
