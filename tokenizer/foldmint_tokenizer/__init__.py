"""Protein backbones to structure tokens, in process.

from foldmint_tokenizer import StructureTokenizer
StructureTokenizer.load().tokenize("1crn.cif")
"""

from foldmint_tokenizer.backbone import Backbone, backbone
from foldmint_tokenizer.errors import InvalidStructure, ModelError, TokenizerError
from foldmint_tokenizer.structure import Limits, read_backbones
from foldmint_tokenizer.tokenizer import StructureTokenizer
from foldmint_tokenizer.tokens import TokenizedChain

__all__ = [
    "Backbone",
    "InvalidStructure",
    "Limits",
    "ModelError",
    "StructureTokenizer",
    "TokenizedChain",
    "TokenizerError",
    "backbone",
    "read_backbones",
]
