"""How the codes of tokens are chosen, and the contract's numbers for it."""

from typing import Literal

from foldmint.v1 import tokenizer_pb2

Assignment = Literal["independent", "anchored", "tracking"]
"""How codes are chosen. independent: the nearest to each residue's own vector. tracking: those whose composition
stays nearest to each segment. anchored: the same, from anchor to anchor."""

ASSIGNMENTS = {
    "independent": tokenizer_pb2.ASSIGNMENT_INDEPENDENT,
    "anchored": tokenizer_pb2.ASSIGNMENT_ANCHORED,
    "tracking": tokenizer_pb2.ASSIGNMENT_TRACKING,
}
