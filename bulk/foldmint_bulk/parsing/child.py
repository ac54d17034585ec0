"""The child process that reads structures of bulk jobs: also those that Foldcomp compressed.

python -m foldmint_bulk.parsing.child, started by a ParserProcess
"""

from functools import cache

from foldmint_client import errors as client_errors
from foldmint_client.io.foldcomp_files import Foldcomp
from foldmint_client.io.suffixes import FOLDCOMP
from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.parsing.child import answer_requests
from foldmint_tokenizer.structure.left_out import StructureContent
from foldmint_tokenizer.structure.options import ReadOptions
from foldmint_tokenizer.structure.reader import read_structure


def read(content: bytes, name: str, options: ReadOptions) -> StructureContent:
    """The structure of a file; what ends with .fcz is decompressed by Foldcomp. Raises InvalidStructure."""
    if name.lower().endswith(FOLDCOMP):
        try:
            content = _foldcomp().pdb(content)
        except client_errors.InvalidStructure as error:
            raise InvalidStructure("content", str(error)) from error
    return read_structure(content, options)


@cache
def _foldcomp() -> Foldcomp:
    """Its process, which ends with this one."""
    return Foldcomp()


if __name__ == "__main__":
    answer_requests(read)
