"""Writes decoded structures as PDB or mmCIF, with the pLDDT in the B-factor column."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import get_args

import gemmi
import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.detokenizer import DecodedChain, DecodedStructure
from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.chain_labels import CompleteLabels, Labels, completed, default_names
from foldmint_tokenizer.structure.options import WrittenFormat

_ATOMS = (("N", "N"), ("CA", "C"), ("C", "C"))
_UNKNOWN = "UNK"
_INSERTIONS = " ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# What fits into the PDB's columns.
_PDB_ATOMS = 99_999
_PDB_NUMBERS = range(-999, 10_000)
_PDB_NEAREST, _PDB_FARTHEST = -999.999, 9999.999  # Å
_INSTEAD = "mmCIF has no such limit"


def structure_text(
    structure: DecodedStructure,
    format: WrittenFormat,  # noqa: A002 (the word that callers expect)
    labels: Sequence[Labels] = (),
    *,
    origin: str = "",
) -> str:
    """The text of a file with N, CA and C of each residue; the B-factors are the pLDDT, 0 to 100.

    Residues with NaN coordinates are gaps: in the sequence, but without atoms. labels: names of the chains and
    residues, one entry a chain, or empty (see `completed`); tokenized chains have them. A letter becomes the residue's
    name; X, and letters of no amino acid, become UNK, the PDB's name for an unknown residue. origin: what the tokens
    belong to, for the title.

    Raises InvalidStructure, with field `format` or such as `chains[0].residue_index`, if the format cannot represent
    it.
    """
    named = completed([len(chain) for chain in structure.chains], labels)
    check_writable(named, format)
    if format == "pdb":
        _check_coordinates(structure)
    built = _built(structure, named, f"Decoded from structure tokens{' of ' * bool(origin)}{origin}")
    if format == "pdb":
        return built.make_pdb_string(gemmi.PdbWriteOptions(cryst1_record=False))
    # A predicted structure has no unit cell.
    groups = gemmi.MmcifOutputGroups(True, cell=False, symmetry=False)
    return built.make_mmcif_document(groups).as_string()


def check_writable(labels: Sequence[CompleteLabels], format: WrittenFormat) -> None:  # noqa: A002
    """Raise InvalidStructure if the format cannot represent chains with these labels, whatever their coordinates."""
    if format not in get_args(WrittenFormat):
        known = ", ".join(get_args(WrittenFormat))
        raise InvalidStructure("format", f"must be one of {known}, not {format!r}")
    names = Counter(label.chain for label in labels)
    for place, label in enumerate(labels):
        try:
            if names[label.chain] > 1:
                raise InvalidStructure("chain", "another chain has this name")
            if format == "pdb":
                _check_pdb(label)
            _identifiers(label)
        except InvalidStructure as error:
            where = InvalidStructure(error.field, error.reason, chain=label.chain, residue=error.residue)
            raise where.within(f"chains[{place}].") from error
    atoms = sum(len(label.residue_index) for label in labels) * len(_ATOMS)
    # Each chain's TER record has a number, too.
    if format == "pdb" and atoms + len(labels) > _PDB_ATOMS:
        raise InvalidStructure("format", f"{atoms} atoms; PDB files have at most {_PDB_ATOMS}; {_INSTEAD}")


def _check_pdb(label: CompleteLabels) -> None:
    if len(label.chain) != 1 or not label.chain.isascii() or label.chain == " ":
        raise InvalidStructure("chain", f"chain names in PDB files are one letter or digit, 62 in all; {_INSTEAD}")
    outside = ~np.isin(label.residue_index, _PDB_NUMBERS)
    if outside.any():
        raise InvalidStructure(
            "residue_index",
            f"residue numbers in PDB files are {_PDB_NUMBERS[0]} to {_PDB_NUMBERS[-1]}; {_INSTEAD}",
            residue=label.label(int(outside.argmax())),
        )


def _check_coordinates(structure: DecodedStructure) -> None:
    for chain in structure.chains:
        there = chain.coordinates[_resolved(chain)]
        if not len(there):
            continue
        low, high = float(there.min()), float(there.max())
        if low < _PDB_NEAREST or high > _PDB_FARTHEST:
            raise InvalidStructure(
                "format",
                f"coordinates range from {low:.0f} to {high:.0f} Å; PDB files have {_PDB_NEAREST:.0f} to "
                f"{_PDB_FARTHEST:.0f}; {_INSTEAD}",
            )


def _identifiers(label: CompleteLabels) -> list[tuple[int, str]]:
    """Number and insertion code of each residue; residues that share a number and have no codes get none, A, B, …."""
    numbers = label.residue_index.tolist()
    codes = label.insertion_codes
    if not codes:
        seen: Counter[int] = Counter()
        places = []
        for number in numbers:
            places.append(seen[number])
            seen[number] += 1
        codes = "".join(_INSERTIONS[min(place, len(_INSERTIONS) - 1)] for place in places)
    identifiers = list(zip(numbers, codes, strict=True))
    if len(set(identifiers)) < len(identifiers):
        number, code = Counter(identifiers).most_common(1)[0][0]
        raise InvalidStructure(
            "residue_index",
            "several residues have this number and insertion code",
            residue=f"{number}{code.strip()}",
        )
    return identifiers


def _built(structure: DecodedStructure, labels: Sequence[CompleteLabels], title: str) -> gemmi.Structure:
    built = gemmi.Structure()
    built.name = "foldmint"
    score = "" if math.isnan(structure.ptm) else f"; pTM {structure.ptm:.2f}"
    built.info["_struct.title"] = f"{title}{score}; B-factors are pLDDT"
    built.info["_exptl.method"] = "THEORETICAL MODEL"
    model = gemmi.Model(1)
    for number, (name, chain, label) in enumerate(zip(default_names(set()), structure.chains, labels, strict=False), 1):
        residues = [_residue_name(letter) for letter in label.sequence]
        entity = gemmi.Entity(str(number))
        entity.entity_type = gemmi.EntityType.Polymer
        entity.polymer_type = gemmi.PolymerType.PeptideL
        entity.subchains = [name]
        entity.full_sequence = residues
        built.entities.append(entity)
        model.add_chain(_built_chain(chain, label, residues, name, entity.name))
    built.add_model(model)
    built.assign_serial_numbers()
    return built


def _built_chain(
    chain: DecodedChain, label: CompleteLabels, names: Sequence[str], subchain: str, entity: str
) -> gemmi.Chain:
    built = gemmi.Chain(label.chain)
    positions = np.round(chain.coordinates.astype(np.float64), 3)
    there = _resolved(chain)
    for place, (name, identifier) in enumerate(zip(names, _identifiers(label), strict=True)):
        if not there[place]:
            continue
        residue = gemmi.Residue()
        residue.name = name
        residue.seqid = gemmi.SeqId(*identifier)
        residue.label_seq = place + 1
        residue.subchain, residue.entity_id = subchain, entity
        residue.entity_type = gemmi.EntityType.Polymer
        residue.het_flag = "A"
        for atom in _built_atoms(positions[place], float(chain.plddt[place])):
            residue.add_atom(atom)
        built.add_residue(residue)
    return built


def _resolved(chain: DecodedChain) -> NDArray[np.bool_]:
    """Which residues are not gaps, (residues,)."""
    return np.asarray(np.isfinite(chain.coordinates).all((1, 2)), np.bool_)


def _built_atoms(positions: NDArray[np.float64], plddt: float) -> list[gemmi.Atom]:
    atoms = []
    for (name, element), position in zip(_ATOMS, positions.tolist(), strict=True):
        atom = gemmi.Atom()
        atom.name, atom.element = name, gemmi.Element(element)
        atom.pos = gemmi.Position(*position)
        atom.occ, atom.b_iso = 1.0, round(100 * plddt, 2)
        atoms.append(atom)
    return atoms


def _residue_name(letter: str) -> str:
    known = gemmi.expand_one_letter(letter.upper(), gemmi.ResidueKind.AA) if letter.isascii() else None
    return known or _UNKNOWN
