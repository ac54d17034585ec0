"""Protein backbones to structure tokens and back, in process.

from foldmint_tokenizer import StructureDetokenizer, StructureTokenizer
(chain,) = StructureTokenizer.load().tokenize("1crn.cif")
StructureDetokenizer.load().detokenize(chain.tokens)
"""

from foldmint_tokenizer.backbone import Backbone, backbone
from foldmint_tokenizer.detokenizer import DecodedChain, DecodedStructure, StructureDetokenizer
from foldmint_tokenizer.errors import InvalidStructure, InvalidTokens, ModelError, TokenizerError
from foldmint_tokenizer.labels import ChainLabels
from foldmint_tokenizer.structure import Limits, read_backbones
from foldmint_tokenizer.tokenizer import StructureTokenizer
from foldmint_tokenizer.tokens import TokenizedChain
from foldmint_tokenizer.writing import structure_text

__all__ = [
    "Backbone",
    "ChainLabels",
    "DecodedChain",
    "DecodedStructure",
    "InvalidStructure",
    "InvalidTokens",
    "Limits",
    "ModelError",
    "StructureDetokenizer",
    "StructureTokenizer",
    "TokenizedChain",
    "TokenizerError",
    "backbone",
    "read_backbones",
    "structure_text",
]
