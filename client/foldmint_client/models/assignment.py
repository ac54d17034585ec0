"""How the codes of tokens are chosen, and the contract's numbers for it."""

from typing import Literal

from foldmint.v1 import tokenizer_pb2

Assignment = Literal["independent", "anchored", "tracking"]
"""How codes are chosen: the code nearest to each residue's own vector; along the chain, the one nearest to where the
chain should go from where the tokens before have led, measured anew at anchors; the same, but never anew."""

ASSIGNMENTS = {
    "independent": tokenizer_pb2.ASSIGNMENT_INDEPENDENT,
    "anchored": tokenizer_pb2.ASSIGNMENT_ANCHORED,
    "tracking": tokenizer_pb2.ASSIGNMENT_TRACKING,
}
