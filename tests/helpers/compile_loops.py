"""Fill numba's cache before tests start many processes at once, each of which would compile the same loops.

python tests/helpers/compile_loops.py
"""

from pathlib import Path

from foldmint_tokenizer import Assignment, StructureDetokenizer, StructureTokenizer

STRUCTURE = Path(__file__).parents[1] / "data" / "1a8o.cif"

if __name__ == "__main__":
    tokenizer = StructureTokenizer.load()
    (chain,) = tokenizer.tokenize(STRUCTURE, assignment=Assignment.TRACKING)
    StructureDetokenizer(tokenizer.model).detokenize(chain.tokens)
