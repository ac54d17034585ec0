"""Protein backbones to structure tokens and back, in process.

from foldmint_tokenizer import StructureDetokenizer, StructureTokenizer
(chain,) = StructureTokenizer.load().tokenize("1crn.cif")
StructureDetokenizer.load().detokenize(chain.tokens)

The names below are imported when they are first used: reading structures needs no torch.
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

_HOMES = {
    "Assignment": "motion.assignment",
    "Backbone": "structure.backbone",
    "ChainLabels": "structure.chain_labels",
    "DecodedChain": "detokenizer",
    "DecodedStructure": "detokenizer",
    "InvalidStructure": "errors",
    "InvalidTokens": "errors",
    "LeftOut": "structure.left_out",
    "LeftOutKind": "structure.left_out",
    "Limits": "structure.options",
    "ModelError": "errors",
    "ReadOptions": "structure.options",
    "StructureContent": "structure.left_out",
    "StructureDetokenizer": "detokenizer",
    "StructureTokenizer": "tokenizer",
    "TokenizedChain": "tokens",
    "TokenizedStructure": "tokens",
    "TokenizerError": "errors",
    "backbone": "structure.backbone",
    "read_backbones": "structure.reader",
    "read_structure": "structure.reader",
    "structure_text": "structure.writer",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
