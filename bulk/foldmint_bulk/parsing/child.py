"""A process that parses structures, and may die of them.

python -m foldmint_bulk.parsing.child

The first message has its limits: memory in bytes, and seconds a structure. Every other one is a structure, and is
answered.
"""

import resource
import signal
from functools import cache
from typing import Any

from foldmint_bulk.parsing.messages import FAILED, INVALID, KILLED, answer_of, backbones_of, error_answer
from foldmint_bulk.processes import connect_parent, packed, unpacked
from foldmint_client import errors as client_errors
from foldmint_client.io.foldcomp_files import Foldcomp
from foldmint_client.io.suffixes import FOLDCOMP
from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.neighborhoods import build_geometry, join_geometries
from foldmint_tokenizer.structure.left_out import StructureContent, frame_warnings
from foldmint_tokenizer.structure.options import ReadOptions
from foldmint_tokenizer.structure.reader import read_structure


def main() -> None:
    """Answer until the requests end."""
    requests, answers = connect_parent()
    settings = unpacked(requests.recv_bytes())
    resource.setrlimit(resource.RLIMIT_AS, (settings["memory"],) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            request = unpacked(requests.recv_bytes())
        except EOFError:
            return
        # Its parent kills it before that; without a parent, it ends by itself.
        signal.alarm(int(settings["seconds"]) + 60)
        answer = packed(_answer(request, settings))
        signal.alarm(0)
        try:
            answers.send_bytes(answer)
        except BrokenPipeError:
            return


def _answer(request: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    try:
        content = _content(request, settings)
        parts = [build_geometry(chain.coordinates, chain.residue_index) for chain in content.chains]
        return answer_of(content, join_geometries(parts))
    except InvalidStructure as error:
        return error_answer(INVALID, str(error))
    except MemoryError:
        limit = settings["memory"] / 2**30
        return error_answer(KILLED, f"parsing it needs more memory than the limit of {limit:g} GiB")
    except Exception as error:  # noqa: BLE001 (the others continue)
        return error_answer(FAILED, f"{type(error).__name__}: {error}")


def _content(request: dict[str, Any], settings: dict[str, Any]) -> StructureContent:
    backbones = backbones_of(request)
    if backbones is not None:
        if not backbones:
            raise InvalidStructure("chains", "there are no chains")
        return StructureContent(backbones, warnings=frame_warnings(backbones))
    options = ReadOptions(
        format=request["format"] or None, reading=settings["reading"], chains=tuple(request["chains"])
    )
    return read_structure(_plain(request["file"], request["name"]), options)


def _plain(content: bytes, name: str) -> bytes:
    """A file as it is, or the PDB file of what Foldcomp compressed. Raises InvalidStructure."""
    if not name.lower().endswith(FOLDCOMP):
        return content
    try:
        return _foldcomp().pdb(content)
    except client_errors.InvalidStructure as error:
        raise InvalidStructure("content", str(error)) from error


@cache
def _foldcomp() -> Foldcomp:
    """Its process, which ends with this one."""
    return Foldcomp()


if __name__ == "__main__":
    main()
