"""Protein backbones to structure tokens and back, in process.

from foldmint_tokenizer import StructureDetokenizer, StructureTokenizer
(chain,) = StructureTokenizer.load().tokenize("1crn.cif")
StructureDetokenizer.load().detokenize(chain.tokens)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foldmint_tokenizer.detokenizer import DecodedChain, DecodedStructure, StructureDetokenizer
    from foldmint_tokenizer.errors import InvalidStructure, InvalidTokens, ModelError, TokenizerError
    from foldmint_tokenizer.motion.assignment import Assignment
    from foldmint_tokenizer.structure.backbone import Backbone, backbone
    from foldmint_tokenizer.structure.chain_labels import ChainLabels
    from foldmint_tokenizer.structure.left_out import LeftOut, LeftOutKind, StructureContent
    from foldmint_tokenizer.structure.options import Limits, ReadOptions
    from foldmint_tokenizer.structure.reader import read_backbones, read_structure
    from foldmint_tokenizer.structure.writer import structure_text
    from foldmint_tokenizer.tokenizer import StructureTokenizer
    from foldmint_tokenizer.tokens import TokenizedChain, TokenizedStructure

__all__ = [
    "Assignment",
    "Backbone",
    "ChainLabels",
    "DecodedChain",
    "DecodedStructure",
    "InvalidStructure",
    "InvalidTokens",
    "LeftOut",
    "LeftOutKind",
    "Limits",
    "ModelError",
    "ReadOptions",
    "StructureContent",
    "StructureDetokenizer",
    "StructureTokenizer",
    "TokenizedChain",
    "TokenizedStructure",
    "TokenizerError",
    "backbone",
    "read_backbones",
    "read_structure",
    "structure_text",
]

# Loaded when asked for: what parses structures needs no torch, and a process that does nothing else starts sooner.
_MODULES = {
    "Assignment": "foldmint_tokenizer.motion.assignment",
    "Backbone": "foldmint_tokenizer.structure.backbone",
    "ChainLabels": "foldmint_tokenizer.structure.chain_labels",
    "DecodedChain": "foldmint_tokenizer.detokenizer",
    "DecodedStructure": "foldmint_tokenizer.detokenizer",
    "InvalidStructure": "foldmint_tokenizer.errors",
    "InvalidTokens": "foldmint_tokenizer.errors",
    "LeftOut": "foldmint_tokenizer.structure.left_out",
    "LeftOutKind": "foldmint_tokenizer.structure.left_out",
    "Limits": "foldmint_tokenizer.structure.options",
    "ModelError": "foldmint_tokenizer.errors",
    "ReadOptions": "foldmint_tokenizer.structure.options",
    "StructureContent": "foldmint_tokenizer.structure.left_out",
    "StructureDetokenizer": "foldmint_tokenizer.detokenizer",
    "StructureTokenizer": "foldmint_tokenizer.tokenizer",
    "TokenizedChain": "foldmint_tokenizer.tokens",
    "TokenizedStructure": "foldmint_tokenizer.tokens",
    "TokenizerError": "foldmint_tokenizer.errors",
    "backbone": "foldmint_tokenizer.structure.backbone",
    "read_backbones": "foldmint_tokenizer.structure.reader",
    "read_structure": "foldmint_tokenizer.structure.reader",
    "structure_text": "foldmint_tokenizer.structure.writer",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
