"""Reading of PDB and mmCIF files: their protein chains, as backbones."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.backbone import Backbone, as_float32
from foldmint_tokenizer.structure.decompress import unpacked
from foldmint_tokenizer.structure.left_out import StructureContent
from foldmint_tokenizer.structure.options import Format, Limits, ReadOptions
from foldmint_tokenizer.structure.prefilter import pdb_lines, rejoin, screen_block

_ATOMS = {"N": 0, "CA": 1, "C": 2}
# The first line that is neither blank nor a comment.
_FIRST_LINE = re.compile(rb"^[ \t\r\f\v]*+([^\s#][^\n]{0,10})", re.MULTILINE)
# Residues of all kinds, waters and nucleic acids among them, for each of a protein.
_RESIDUES_IN_ALL = 4
_FEWEST_IN_ALL = 1_000


def read_structure(source: str | os.PathLike[str] | bytes, options: ReadOptions = ReadOptions()) -> StructureContent:
    """All protein chains of a file, or those asked for, in the file's order, and what was left out.

    source: a path, or a file's bytes; plain or gzip.

    Raises InvalidStructure, with field `content` or the option at fault; OSError if a path cannot be read.
    """
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    limits = options.limits
    text = unpacked(content, limits.unpacked_bytes)
    try:
        structure = _parsed(text, options.format or _guessed(text), options.model_number, limits)
        model = _model(structure, options.model_number)
        _check_all(model, limits)
        proteins = [(chain.name, residues) for chain in model if (residues := list(_protein_residues(chain)))]
        if not proteins:
            raise InvalidStructure("content", "there is no protein in the file")
        if options.chains:
            proteins = _chosen(proteins, options.chains)
        _check_size([residues for _, residues in proteins], limits)
        return StructureContent([_backbone(name, residues) for name, residues in proteins])
    except UnicodeDecodeError as error:
        raise InvalidStructure("content", f"a name in the file is no UTF-8 text: {error}") from error


def read_backbones(
    source: str | os.PathLike[str] | bytes,
    *,
    format: Format | None = None,  # noqa: A002 (the word that callers expect)
    model_number: int = 0,
    chains: Sequence[str] = (),
    limits: Limits = Limits(),
) -> list[Backbone]:
    """The chains of `read_structure`, without what was left out."""
    options = ReadOptions(format=format, model_number=model_number, chains=chains, limits=limits)
    return list(read_structure(source, options).chains)


def _chosen(
    proteins: Sequence[tuple[str, list[gemmi.Residue]]], chains: Sequence[str]
) -> list[tuple[str, list[gemmi.Residue]]]:
    """Those of the chains that are named. Raises InvalidStructure for a name that none has."""
    names = {name for name, _ in proteins}
    for name in chains:
        if name not in names:
            reason = f"no protein chain has this name; there are: {_listed(sorted(names))}"
            raise InvalidStructure("chains", reason, chain=name)
    wanted = set(chains)
    return [protein for protein in proteins if protein[0] in wanted]


def _check_size(chains: Sequence[Sequence[object]], limits: Limits) -> None:
    """Raise InvalidStructure if there are more chains or residues than the limits allow."""
    if len(chains) > limits.chains:
        raise InvalidStructure("content", f"{len(chains)} chains; at most {limits.chains} are taken")
    residues = sum(len(chain) for chain in chains)
    if residues > limits.residues:
        raise InvalidStructure("content", f"{residues} residues; at most {limits.residues} are taken")


def _check_all(model: gemmi.Model, limits: Limits) -> None:
    """Raise InvalidStructure if a model is far beyond the limits, before it is looked at closely."""
    residues = sum(len(chain) for chain in model)
    most = max(_FEWEST_IN_ALL, _RESIDUES_IN_ALL * limits.residues)
    if residues > most:
        reason = f"{residues} residues, with those that are no protein's; at most {most} are taken"
        raise InvalidStructure("content", reason)


def _guessed(text: bytes) -> Format:
    first = _FIRST_LINE.search(text)
    return "mmcif" if first is not None and first[1][:5].lower() == b"data_" else "pdb"


def _parsed(text: bytes, format: Format, model_number: int, limits: Limits) -> gemmi.Structure:  # noqa: A002
    """The structure, of other models than that one an atom or nothing, with chains whole and entity types told."""
    name = {"pdb": "PDB", "mmcif": "mmCIF", "bcif": "BinaryCIF"}[format]
    numbers = None
    try:
        if format == "mmcif":
            document = gemmi.cif.read_string(text)
            if len(document) == 0:
                raise InvalidStructure("content", "the mmCIF file has no data block")
            parted = screen_block(document[0], model_number, limits.chains)
            structure = gemmi.make_structure_from_block(document[0])
            del document  # many times the size of the file
            (rejoin if parted else gemmi.Structure.merge_chain_parts)(structure)
        else:
            lines, numbers = pdb_lines(text, model_number, limits.chains, limits.unpacked_bytes)
            structure = gemmi.read_pdb_string(lines)
            structure.merge_chain_parts()
    except UnicodeDecodeError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, InvalidStructure):
            raise
        said = _one_line(error, numbers)
        raise InvalidStructure("content", f"this is no {name} file that can be read: {said}") from error
    if not any(len(chain) for model in structure for chain in model):
        raise InvalidStructure("content", f"read as {name}, the file has no atoms")
    structure.add_entity_types()
    return structure


def _one_line(error: Exception, numbers: NDArray[np.int64] | None) -> str:
    """What gemmi says. numbers: which lines of the file those that it was given are, if it was not given all."""

    def told(line: re.Match[str]) -> str:
        number = int(line[2])
        return line[1] + str(number if numbers is None or number > len(numbers) else numbers[number - 1])

    return re.sub(r"^(Problem in line )(\d+)", told, " ".join(str(error).split())[:200])


def _model(structure: gemmi.Structure, number: int) -> gemmi.Model:
    if number == 0:
        return structure[0]
    for model in structure:
        if model.num == number:
            return model
    known = _listed([str(model.num) for model in structure])
    raise InvalidStructure("model_number", f"the file has no model {number}; its models are: {known}")


def _listed(names: Sequence[str]) -> str:
    """The first of many names: messages stay short, whatever a file holds."""
    most = 20
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _backbone(name: str, residues: Sequence[gemmi.Residue]) -> Backbone:
    positions = np.full((len(residues), 3, 3), np.nan)
    insertions = "".join(residue.seqid.icode for residue in residues)
    try:
        for row, residue in enumerate(residues):
            for place, position in _positions(residue):
                positions[row, place] = position
        return Backbone(
            chain=name,
            sequence="".join(_letter(residue) for residue in residues),
            residue_index=np.array([residue.seqid.num for residue in residues], np.int64),
            coordinates=as_float32(positions),
            insertion_codes=insertions if insertions.strip() else "",
        )
    except InvalidStructure as error:
        raise InvalidStructure("content", error.reason, chain=name, residue=error.residue) from error


def _protein_residues(chain: gemmi.Chain) -> Iterator[gemmi.Residue]:
    """The chain's amino acids; where several kinds are alternatives in one place, that of the highest occupancy."""
    taken = (residue for residue in chain if _is_protein(residue))
    for (number, _), group in groupby(taken, key=lambda residue: (residue.seqid.num, residue.seqid.icode)):
        residues = list(group)
        if number is None:
            raise InvalidStructure("content", "it has no number", chain=chain.name, residue=residues[0].name)
        if all(atom.has_altloc() for residue in residues for atom in residue):
            yield max(residues, key=lambda residue: max(atom.occ for atom in residue))
        else:
            yield from residues


def _is_protein(residue: gemmi.Residue) -> bool:
    kind = gemmi.find_tabulated_residue(residue.name)
    if kind.is_nucleic_acid() or kind.is_water():
        return False
    amino_acid = kind.is_amino_acid() or residue.find_atom("CA", "*") is not None
    if residue.entity_type == gemmi.EntityType.Polymer:
        return amino_acid
    # Very short chains, and files that tell nothing of entities, have no polymer of their own in gemmi's eyes.
    return residue.entity_type == gemmi.EntityType.Unknown and amino_acid and residue.het_flag == "A"


def _positions(residue: gemmi.Residue) -> Iterator[tuple[int, list[float]]]:
    """Places (0 N, 1 CA, 2 C) and positions of the residue's backbone atoms, all of one alternate location."""
    atoms = [atom for atom in residue if atom.name in _ATOMS]
    if len({(atom.name, atom.altloc) for atom in atoms}) < len(atoms):
        raise InvalidStructure(
            "content",
            "an atom is there twice; residues that share a number cannot be told apart",
            residue=f"{residue.name} {residue.seqid}",
        )
    occupancy: dict[str, float] = {}
    for atom in atoms:
        if atom.has_altloc():
            occupancy[atom.altloc] = occupancy.get(atom.altloc, 0.0) + atom.occ
    best = max(occupancy, key=lambda location: occupancy[location]) if occupancy else ""
    seen: set[int] = set()
    # Atoms of the best location first, then those that have only one, then what is left.
    for atom in sorted(atoms, key=lambda atom: (atom.altloc != best, atom.has_altloc(), -atom.occ)):
        place = _ATOMS[atom.name]
        if place not in seen:
            seen.add(place)
            yield place, atom.pos.tolist()


def _letter(residue: gemmi.Residue) -> str:
    letter = gemmi.find_tabulated_residue(residue.name).one_letter_code.strip().upper()
    return letter if len(letter) == 1 else "X"
