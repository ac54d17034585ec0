"""Protein backbones to structure tokens and back, in process.

from foldmint_tokenizer import StructureDetokenizer, StructureTokenizer
(chain,) = StructureTokenizer.load().tokenize("1crn.cif")
StructureDetokenizer.load().detokenize(chain.tokens)
"""

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
