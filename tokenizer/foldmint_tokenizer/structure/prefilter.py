"""What is left out of a file, and counted, before gemmi makes a structure of it.

gemmi is made for files of the PDB. For some others it takes time in proportion to the square of their size, or memory
without bound: thousands of chains that take turns line by line, a hundred thousand residues in one mmCIF chain, an
assembly of a billion operators. So it is given only what a backbone is read from, of one model, in portions that it
takes in linear time; all that is done here is linear too.
"""

import re
from collections.abc import Sequence
from itertools import groupby, islice, pairwise
from operator import ne
from typing import NamedTuple

import gemmi
import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure

_MODELS = 10_000
_FEWEST_PARTS = 1_000
# A chain's polymer, ligands and waters are mostly apart, and each ion has a label of its own.
_PARTS_A_CHAIN = 10
_FEWEST_LINES = 1_000_000
_LINE_BYTES = 40  # on average, or more: 81 in files of the PDB
# Rows of atoms that gemmi is given as one chain: it looks for each new residue among all before it.
_PORTION = 500
# Marks every second portion. No CIF file can hold this character in a name.
_MARK = "\x1f"
_NEEDED = ("_atom_site.", "_entity.", "_entity_poly.", "_struct_asym.")


class PdbLines(NamedTuple):
    """Lines of a PDB file. text: the lines. numbers: (lines,), which ones they are in the file, from 1."""

    text: bytes
    numbers: NDArray[np.int64]


def pdb_lines(text: bytes, model_number: int, chains: int, size: int) -> PdbLines:
    """The lines of a PDB file that tell of the atoms of one model, and of each other model its first atom.

    model_number: 0 for the first. chains, size: the most chains and bytes that are taken; from them follow the most
    changes from chain to chain, and the most lines.

    Raises InvalidStructure if there are too many lines, models, or changes of chain.
    """
    most = max(_FEWEST_LINES, size // _LINE_BYTES)
    count = text.count(b"\n") + 1
    if count > most:
        raise InvalidStructure("content", f"{count} lines; at most {most} are taken")
    data = np.frombuffer(text, np.uint8)
    starts = np.concatenate([[0], np.flatnonzero(data == ord("\n")) + 1])
    record = _columns(data, starts, 0, 4) & ~np.uint8(0x20)  # gemmi does not regard case
    (ends,) = np.nonzero((record[:, :3] == list(b"END")).all(1) & (record[:, 3] < 16))  # not ENDM…
    if len(ends):
        data, starts, record = data[: starts[ends[0]]], starts[: ends[0]], record[: ends[0]]
    opens, closes = _are(record, b"MODE"), _are(record, b"ENDM")
    atoms = _are(record, b"ATOM") | _are(record, b"HETA")
    bounds = np.flatnonzero(opens | closes)
    if len(bounds) > 2 * _MODELS:
        raise InvalidStructure("content", f"more than {_MODELS} models; at most as many are taken")
    own = _of_model(data, starts, opens, closes, atoms, model_number) if len(bounds) else np.ones_like(atoms)
    names = _columns(data, starts[atoms & own], 20, 22)
    check_parts(1 + int((names[1:] != names[:-1]).any(1).sum()), chains)

    keep = opens | closes | own & (atoms | (record[:, :3] == list(b"TER")).all(1))
    others = np.flatnonzero(atoms & ~own)
    keep[others[np.unique(np.searchsorted(bounds, others), return_index=True)[1]]] = True
    lengths = np.diff(np.append(starts, len(data)))
    return PdbLines(data[np.repeat(keep, lengths)].tobytes(), np.flatnonzero(keep) + 1)


def screen_block(block: gemmi.cif.Block, model_number: int, chains: int) -> bool:
    """Leave of an mmCIF block what tells of the atoms of one model, of entities and of which chains are which.

    model_number: 0 for the first. chains: the most that are taken, from which the most changes from chain to chain
    follow. Returns whether the rows were parted into portions, which `rejoin` puts together again.

    Raises InvalidStructure if there are too many models, or changes of chain; UnicodeDecodeError for what is no UTF-8.
    """
    for item in block:
        if not _needed(item):
            item.erase()
    for name in _NEEDED[1:]:
        check_parts(len(block.find_mmcif_category(name)), chains, f"rows of {name[:-1]}")
    loop = block.find_loop("_atom_site.Cartn_x").get_loop()
    if loop is None:
        return False
    _keep_model(block, model_number)
    for name in ("auth_asym_id", "label_asym_id"):
        names = list(block.find_loop(f"_atom_site.{name}"))
        check_parts(1 + sum(map(ne, names, islice(names, 1, None))), chains)
    if loop.length() <= 10 * _PORTION:
        return False
    _part(block, loop)
    return True


def rejoin(structure: gemmi.Structure) -> None:
    """Put the portions of chains together again, once all parts of a chain that were apart in the file are one.

    Of a residue whose atoms are in several portions, all become one residue, as gemmi does within one chain.
    """
    for model in structure:
        for chain in model:
            chain.name = chain.name.removesuffix(_MARK)
    structure.merge_chain_parts()
    for model in structure:
        for place, chain in enumerate(list(model)):
            keys = [_key(residue) for residue in chain]
            if len(set(keys)) < len(keys):
                whole = _united(chain, keys)
                del model[place]
                model.add_chain(whole, place)


def check_parts(parts: int, chains: int, of: str = "parts of chains") -> None:
    """Raise InvalidStructure if there are too many for files with so many chains at most."""
    most = max(_FEWEST_PARTS, _PARTS_A_CHAIN * chains)
    if parts > most:
        raise InvalidStructure("content", f"{parts} {of}; at most {most} are taken")


def _columns(data: NDArray[np.uint8], starts: NDArray[np.int64], first: int, last: int) -> NDArray[np.uint8]:
    """Bytes (lines, last - first) of the lines that start there; of what follows, where a line is too short."""
    places = starts[:, None] + np.arange(first, last)
    return data[np.minimum(places, len(data) - 1)] if len(data) else np.zeros(places.shape, np.uint8)


def _are(record: NDArray[np.uint8], name: bytes) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (record == list(name)).all(1)
    return found


def _of_model(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    opens: NDArray[np.bool_],
    closes: NDArray[np.bool_],
    atoms: NDArray[np.bool_],
    wanted: int,
) -> NDArray[np.bool_]:
    """Which lines belong to a model, (lines,), as gemmi numbers those that have no number."""
    before = np.concatenate([[0], np.cumsum(atoms)])
    bounds = np.flatnonzero(opens | closes)
    models: dict[int, None] = {}
    found = np.zeros(len(starts), np.bool_)
    model: int | None = None
    for first, last in pairwise([0, *bounds.tolist(), len(starts)]):
        if first < last and opens[first]:
            number = re.match(rb"\s*([+-]?\d+)", data[starts[first] + 6 : starts[first] + 14].tobytes())
            model = int(number[1]) if number else 0
        elif first < last and closes[first]:
            model = None
        if model is None and before[last] > before[first]:
            model = len(models) + 1
        if model is not None:
            models.setdefault(model)
            found[first:last] = model == (wanted or next(iter(models)))
    return found


def _needed(item: gemmi.cif.Item) -> bool:
    pair: Sequence[str] | None = item.pair  # type: ignore[assignment]  # gemmi says no more than object
    loop = item.loop
    tag = pair[0] if pair is not None else loop.tags[0] if loop is not None else ""
    return tag.lower().startswith(_NEEDED)


def _keep_model(block: gemmi.cif.Block, wanted: int) -> None:
    """Remove the rows of all other models, if those of the wanted one stand together and it is there."""
    column = block.find_loop("_atom_site.pdbx_PDB_model_num")
    runs: list[tuple[int, int, int]] = []
    start = 0
    for text, rows in groupby(column):
        stop = start + sum(1 for _ in rows)
        runs.append((gemmi.cif.as_int(text, 0), start, stop))
        start = stop
        if len(runs) > _MODELS:
            raise InvalidStructure("content", f"more than {_MODELS} models; at most as many are taken")
    own = [run for run in runs if run[0] == (wanted or runs[0][0])]
    if len(own) != 1 or len(runs) == 1:
        return
    table = block.find_mmcif_category("_atom_site.")
    _, first, last = own[0]
    if last < len(table):
        del table[last:]
    if first:
        del table[:first]


def _part(block: gemmi.cif.Block, loop: gemmi.cif.Loop) -> None:
    """Give chains other names in each second portion of rows, so that gemmi takes each portion for a chain."""
    if not any(tag.lower() == "_atom_site.auth_asym_id" for tag in loop.tags):
        loop.add_columns(["_atom_site.auth_asym_id"], "?")
    names, labels = (block.find_loop(f"_atom_site.{kind}_asym_id") for kind in ("auth", "label"))
    numbers = list(block.find_loop("_atom_site.auth_seq_id") or block.find_loop("_atom_site.label_seq_id"))
    marked: dict[str, str] = {}
    for start, stop in list(pairwise(_bounds(numbers, len(names))))[1::2]:
        for row in range(start, stop):
            name = labels[row] if labels and gemmi.cif.is_null(names[row]) else names[row]
            if name not in marked:
                marked[name] = gemmi.cif.quote(gemmi.cif.as_string(name) + _MARK)
            names[row] = marked[name]


def _bounds(numbers: Sequence[str], rows: int) -> list[int]:
    """Where portions begin, and the last one ends: between residues, but for those with thousands of atoms."""
    bounds = [0]
    while (bound := bounds[-1] + _PORTION) < rows:
        most = min(bound + _PORTION, rows)
        while numbers and bound < most and numbers[bound] == numbers[bound - 1]:
            bound += 1
        bounds.append(bound)
    return [*bounds, rows] if bounds[-1] < rows else bounds


def _key(residue: gemmi.Residue) -> tuple[int | None, str, str, str]:
    return residue.seqid.num, residue.seqid.icode, residue.segment, residue.name


def _united(chain: gemmi.Chain, keys: Sequence[object]) -> gemmi.Chain:
    """The chain with one residue for each key, unless an atom would be there twice."""
    whole = gemmi.Chain(chain.name)
    places: dict[object, int] = {}
    atoms: dict[object, set[tuple[str, str]]] = {}
    for key, residue in zip(keys, chain, strict=True):
        own = {(atom.name, atom.altloc) for atom in residue}
        if key in places and not own & atoms[key]:
            for atom in residue:
                whole[places[key]].add_atom(atom)
            atoms[key] |= own
        else:
            places[key], atoms[key] = len(whole), own
            whole.add_residue(residue)
    return whole
