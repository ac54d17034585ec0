"""Residues as ESM's own reader takes them: `ProteinChain.from_pdb` of esm 3.2.1.post1.

Its differences, in order of importance: residues are runs of atoms with one number, whatever their name; of alternate
locations, the first letter of a residue is taken, whatever the occupancies, and digits never are; HETATM records are
left out, and so are names that are not peptide-linking in the CCD; residues without any backbone atom stay; letters
other than the twenty are X.
"""

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.structure.atom_table import AtomTable
from foldmint_tokenizer.structure.chains import ProteinChain, by_group, check_numbers
from foldmint_tokenizer.structure.residue_names import is_linking

_BACKBONE = 3


def find_esm_chains(table: AtomTable) -> list[ProteinChain]:
    """The chains that ESM's reader finds, in separate entries by name. Raises InvalidStructure for a residue without a
    number.
    """
    run = np.repeat(np.arange(len(table)), np.diff(table.starts))
    first = _heads(table, run)
    letters = np.where(_is_letter(table.altloc), table.altloc, 0)
    residue = np.cumsum(first) - 1
    location = _first_nonzero(letters, residue, int(residue[-1]) + 1)[residue]
    linking = np.array([is_linking(name) for name in table.names], bool)[table.name]
    kept = ((table.altloc == 0) | (table.altloc == location)) & ~table.hetatm & linking[run]
    atoms = np.flatnonzero(kept)
    if len(atoms) == 0:
        return []
    run = run[atoms]
    check_numbers(table, np.unique(run))
    residue = np.cumsum(_heads(table, run)) - 1
    heads = run[np.concatenate([[True], residue[1:] != residue[:-1]])]
    coordinates = np.full((len(heads), _BACKBONE, 3), np.nan)
    indices = np.full((len(heads), _BACKBONE), -1, np.int64)
    role = table.role[atoms]
    backbone = np.flatnonzero((role >= 0) & (role < _BACKBONE))
    positions = table.positions(atoms[backbone])
    coordinates[residue[backbone], role[backbone]] = positions  # of several, the last one counts
    indices[residue[backbone], role[backbone]] = atoms[backbone]
    chains = []
    for members in by_group(table.chain[heads]):
        name = table.chain_names[table.chain[heads[members[0]]]]
        segments = np.unique(table.segment[heads[members]]).tolist()
        chains.append(
            ProteinChain(
                name=name,
                author_name=name,
                segment_names=frozenset(table.segment_names[segment] for segment in segments),
                runs=heads[members],
                coordinates=coordinates[members],
                atoms=indices[members],
                alternates=np.zeros(0, np.int64),
            )
        )
    return chains


def esm_left_out(
    table: AtomTable, protein: NDArray[np.bool_], chains: list[ProteinChain]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A protein's residues that are not among these chains, each by its first run.

    Returns (n,) residues for which an alternative was taken, and (m,) others.
    """
    heads = np.concatenate([chain.runs for chain in chains])
    rest = np.setdiff1d(np.flatnonzero(protein), heads)
    both = np.concatenate([heads, rest])
    place = np.unique(
        np.stack([table.chain[both], table.number[both], table.insertion[both]], 1), axis=0, return_inverse=True
    )[1].reshape(-1)
    residue = place * len(table.names) + table.name[both]
    of_heads, of_rest = np.split(np.arange(len(both)), [len(heads)])
    new = of_rest[~np.isin(residue[of_rest], residue[of_heads])]
    new = new[np.unique(residue[new], return_index=True)[1]]
    replaced = np.isin(place[new], place[of_heads])
    return both[new[replaced]], both[new[~replaced]]


def _heads(table: AtomTable, run: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where atoms of these runs begin a residue, (atoms,): at a new chain, number or insertion code."""
    found = np.zeros(len(run), bool)
    found[0] = True
    for values in (table.chain, table.number, table.insertion):
        found[1:] |= values[run[1:]] != values[run[:-1]]
    return found


def _is_letter(codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    upper = codes & ~32
    return (upper >= ord("A")) & (upper <= ord("Z")) & (codes < 128)


def _first_nonzero(values: NDArray[np.int64], group: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """The first nonzero value of each group, (groups,); -1 if there is none."""
    found = np.full(groups, -1, np.int64)
    there = np.flatnonzero(values)[::-1]
    found[group[there]] = values[there]
    return found
