"""Biological assemblies: chains copied by the operators that a file lists."""

import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import gemmi
import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.atom_table import listed
from foldmint_tokenizer.structure.backbone import Backbone, as_float32
from foldmint_tokenizer.structure.chains import ProteinChain
from foldmint_tokenizer.structure.formats.cif_block import CifBlock

_MOST_COPIES = 10_000
_RANGE = re.compile(r"(\d+)-(\d+)")


class _Generator(NamedTuple):
    """Copies of chains.

    names: the chains' names (the author's in PDB files, label_asym_id in mmCIF). operators: (n, 3, 4) each.
    """

    names: frozenset[str]
    operators: list[NDArray[np.float64]]


def build_assembly(
    wanted: str, source: bytes | Sequence[CifBlock], chains: Sequence[ProteinChain], backbones: Sequence[Backbone]
) -> tuple[list[Backbone], list[ProteinChain]]:
    """The chains of an assembly, and the chains of the file that were copied.

    source: a PDB file's text, or the blocks of an mmCIF file. backbones: of the chains. The first copy of a chain keeps
    its name; the others are named A-2, A-3, ...

    Raises InvalidStructure with field `assembly` if the file does not list it, or if it has too many copies.
    """
    generators = _of_pdb(source, wanted) if isinstance(source, bytes) else _of_cif(source, wanted)
    copies: list[Backbone] = []
    seen: dict[str, int] = {}
    for generator in generators:
        for operator in generator.operators:
            for chain, backbone in zip(chains, backbones, strict=True):
                own = {chain.author_name} if isinstance(source, bytes) else chain.segment_names
                if own & generator.names:
                    seen[chain.name] = number = seen.get(chain.name, 0) + 1
                    copies.append(_moved(backbone, operator, number))
                    if len(copies) > _MOST_COPIES:
                        raise InvalidStructure("assembly", f"more than {_MOST_COPIES} copies of chains")
    if not copies:
        raise InvalidStructure("assembly", f"assembly {wanted} contains none of the chains")
    return copies, [chain for chain in chains if chain.name in seen]


def _moved(backbone: Backbone, operator: NDArray[np.float64], number: int) -> Backbone:
    moved = backbone.coordinates.astype(np.float64) @ operator[:, :3].T + operator[:, 3]
    name = backbone.chain if number == 1 else f"{backbone.chain}-{number}"
    return Backbone(name, backbone.sequence, backbone.residue_index, as_float32(moved), backbone.insertion_codes)


def _unknown(wanted: str, known: Sequence[str]) -> InvalidStructure:
    alternatives = f"its assemblies are: {listed(known)}" if known else "it lists no assemblies"
    return InvalidStructure("assembly", f"the file has no assembly {wanted!r}; {alternatives}")


def _of_pdb(text: bytes, wanted: str) -> list[_Generator]:
    """From REMARK 350, parsed by gemmi."""
    remarks = b"\n".join(line for line in text.splitlines() if line.startswith(b"REMARK 350"))
    assemblies = gemmi.read_pdb_string(remarks + b"\nEND\n").assemblies
    for assembly in assemblies:
        if assembly.name == wanted:
            return [
                _Generator(
                    frozenset(generator.chains),
                    [
                        np.concatenate(
                            [np.array(one.transform.mat.tolist()), np.array(one.transform.vec.tolist())[:, None]], 1
                        )
                        for one in generator.operators
                    ],
                )
                for generator in assembly.generators
            ]
    raise _unknown(wanted, [assembly.name for assembly in assemblies])


def _of_cif(blocks: Sequence[CifBlock], wanted: str) -> list[_Generator]:
    """From _pdbx_struct_assembly_gen and _pdbx_struct_oper_list."""
    known: list[str] = []
    found: list[_Generator] = []
    for block in blocks:
        columns = [
            block.text("pdbx_struct_assembly_gen", item) for item in ("assembly_id", "oper_expression", "asym_id_list")
        ]
        ids, expressions, names = columns
        if ids is None or expressions is None or names is None:
            continue
        known += dict.fromkeys(one.decode("latin-1") for one in ids.tolist())
        rows = [row for row, one in enumerate(ids.tolist()) if one.decode("latin-1") == wanted]
        if not rows:
            continue
        operators = _operators(block)
        found += [
            _Generator(
                frozenset(names[row].decode("latin-1").split(",")),
                list(_combined(expressions[row].decode("latin-1"), operators)),
            )
            for row in rows
        ]
    if not found:
        raise _unknown(wanted, known)
    return found


def _operators(block: CifBlock) -> dict[str, NDArray[np.float64]]:
    ids = block.text("pdbx_struct_oper_list", "id")
    rows = []
    for axis in "123":
        items = [f"matrix[{axis}][1]", f"matrix[{axis}][2]", f"matrix[{axis}][3]", f"vector[{axis}]"]
        rows.append([block.floats("pdbx_struct_oper_list", item) for item in items])
    if ids is None or any(column is None for row in rows for column in row):
        raise InvalidStructure("assembly", "the file lacks the operators of its assemblies (_pdbx_struct_oper_list)")
    matrices = np.array(rows).transpose(2, 0, 1)
    return {name.decode("latin-1"): matrix for name, matrix in zip(ids.tolist(), matrices, strict=True)}


def _combined(expression: str, operators: dict[str, NDArray[np.float64]]) -> Iterator[NDArray[np.float64]]:
    """The operators of an expression such as `1,2,5-9` or `(1-60)(61-88)`: all products, applied from the last to the
    first.
    """
    factors = re.findall(r"\(([^()]*)\)", expression) or [expression]
    names = [_names(factor) for factor in factors]
    count = int(np.prod([len(factor) for factor in names], dtype=np.float64))
    if count > _MOST_COPIES:
        raise InvalidStructure("assembly", f"{count} operators; at most {_MOST_COPIES} are accepted")
    for combination in product(*names):
        whole = np.eye(4)
        for name in combination:
            if name not in operators:
                raise InvalidStructure("assembly", f"the file has no operator {name!r}")
            whole = whole @ np.concatenate([operators[name], [[0, 0, 0, 1]]])
        yield whole[:3]


def _names(factor: str) -> list[str]:
    names: list[str] = []
    for part in factor.split(","):
        bounds = _RANGE.fullmatch(part.strip())
        if bounds is None:
            names.append(part.strip())
            continue
        first, last = int(bounds[1]), int(bounds[2])
        if last - first >= _MOST_COPIES:
            raise InvalidStructure(
                "assembly", f"{part} is {last - first + 1} operators; at most {_MOST_COPIES} are accepted"
            )
        names += map(str, range(first, last + 1))
    return names
