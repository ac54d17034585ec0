"""Assembles protein residues into chains: joins parts, separates chains that share a name, chooses alternatives."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.atom_table import MISSING, AtomRole, AtomTable
from foldmint_tokenizer.structure.chain_labels import default_names
from foldmint_tokenizer.structure.residues import BackboneAtoms

_BACKBONE = 3


@dataclass(frozen=True, eq=False)
class ProteinChain:
    """A chain of a file.

    name: unique in the file. author_name: the file's own name, empty if blank. segment_names: of its residues; in
    mmCIF, label_asym_id.

    runs: (residues,), the first run of each residue in the table. coordinates: (residues, 3, 3) float64, Å, NaN for
    missing atoms. atoms: (residues, 3), indices of N, CA and C among the table's atoms, -1 for missing ones.
    alternates: runs of residues for which an alternative was taken.
    """

    name: str
    author_name: str
    segment_names: frozenset[str]
    runs: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    atoms: NDArray[np.int64]
    alternates: NDArray[np.int64]

    @property
    def alpha(self) -> NDArray[np.int64]:
        """The index of each CA among the table's atoms, (residues,); -1 without one."""
        return self.atoms[:, AtomRole.CA]


def find_chains(table: AtomTable, protein: NDArray[np.bool_], backbone: BackboneAtoms) -> list[ProteinChain]:
    """The chains of protein residues, in the order of the file.

    Chains are separated by name. If the name is blank, or if one residue would occur twice, they are separated by
    segment name (in mmCIF: label_asym_id), then by TER, then where the numbering restarts. Parts between END records
    and data blocks are always separate. A chain with a blank name takes its segment's name, or the first free one of A,
    B, C, ...; further chains with the same name become A_2, A_3, ...

    Raises InvalidStructure for a residue without a number, or with an atom that occurs twice.
    """
    runs = np.flatnonzero(protein)
    if len(runs) == 0:
        return []
    check_numbers(table, runs)
    own = protein[backbone.run]
    place = np.cumsum(protein) - 1
    atoms = _Atoms(backbone.atoms[own], place[backbone.run[own]], backbone.role[own], backbone.positions[own])
    kind = _codes(table.number[runs], table.insertion[runs], table.name[runs])
    chain = _separate(table, runs, kind, atoms)
    key = _codes(chain, kind)
    residue = heads = np.arange(len(runs))
    if (key[1:] <= key[:-1]).any():
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        if len(first) < len(runs):  # some residues are in several parts
            order = np.argsort(first)
            rank = np.empty_like(order)
            rank[order] = np.arange(len(order))
            residue, heads = rank[inverse], first[order]
    taken = _taken(table, runs, chain, residue, heads)
    kept = taken == np.arange(len(heads))
    owner = residue[atoms.run]
    if not kept.all():  # atoms without an alternate location belong to all residues at a position
        owner = np.where(table.altloc[atoms.atoms] == 0, taken[owner], owner)
    coordinates, indices = _positions(table, atoms, owner, len(heads))
    chains = []
    names = _chain_names(table, runs, chain)
    for members in by_group(chain[heads]):
        name, author_name = names[int(chain[heads[members[0]]])]
        own = members[kept[members]]
        segments = set(table.segment[runs[heads[members]]].tolist())
        chains.append(
            ProteinChain(
                name=name,
                author_name=author_name,
                segment_names=frozenset(table.segment_names[segment] for segment in segments),
                runs=runs[heads[own]],
                coordinates=coordinates[own],
                atoms=indices[own],
                alternates=runs[heads[members[~kept[members]]]],
            )
        )
    return chains


@dataclass(frozen=True, eq=False)
class _Atoms:
    """As `BackboneAtoms`; run: (n,) indices among the protein's runs."""

    atoms: NDArray[np.int64]
    run: NDArray[np.int64]
    role: NDArray[np.int8]
    positions: NDArray[np.float64]


def by_group(codes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The indices of each code, in the order in which the codes first occur."""
    if len(codes) == 0:
        return []
    order = np.argsort(codes, kind="stable")
    bounds = np.flatnonzero(codes[order][1:] != codes[order][:-1]) + 1
    return sorted(np.split(order, bounds), key=lambda members: int(members[0]))


def check_numbers(table: AtomTable, runs: NDArray[np.int64]) -> None:
    """Raise InvalidStructure for a residue without a number."""
    missing = runs[table.number[runs] == MISSING]
    if len(missing):
        run = int(missing[0])
        text = table.number_text(run)
        reason = "the residue has no number"
        if text:
            reason = f"the residue's number, {text[:20]!r}, is not an integer"
        if "*" in text:
            reason += "; the program that wrote the file ran out of columns: use mmCIF or hybrid-36 numbers"
        raise InvalidStructure(
            "content", reason, chain=table.chain_names[table.chain[run]], residue=table.names[table.name[run]]
        )


def _codes(*values: NDArray[np.integer]) -> NDArray[np.int64]:
    """One integer for each combination of values, (n,)."""
    code = np.zeros(len(values[0]), np.int64)
    for value in values:
        low = int(value.min(initial=0))
        span = int(value.max(initial=0)) - low + 1
        if (int(code.max(initial=0)) + 1) * span >= 2**62:
            code = np.unique(code, return_inverse=True)[1]
            value = np.unique(value, return_inverse=True)[1]
            low, span = 0, int(value.max(initial=0)) + 1
        code = code * span + (value - low)
    return code


def _separate(
    table: AtomTable, runs: NDArray[np.int64], residue: NDArray[np.int64], atoms: _Atoms
) -> NDArray[np.int64]:
    """The chain of each of a protein's runs, (runs,), as arbitrary integers.

    residue: (runs,), equal where number, insertion code and name are equal.
    """
    chain = _codes(table.part[runs], table.chain[runs])
    blank = np.array([not name for name in table.chain_names], bool)[table.chain[runs]]
    twice = _twice(table, chain, residue, atoms)
    segments, sections = table.segment[runs], table.section[runs]
    unnamed = np.array([not name for name in table.segment_names], bool)[segments]
    for value, doubtful in ((segments, blank), (sections, blank & unnamed), (None, np.zeros(len(runs), bool))):
        split = doubtful | twice
        if not split.any():
            return chain
        if value is None:
            value = _restarts(chain, table.number[runs], residue)
        chain = _codes(chain, np.where(split, value, 0))
        twice = _twice(table, chain, residue, atoms)
    if twice.any():
        _refuse_twice(table, runs, chain, residue, atoms)
    return chain


def _restarts(chain: NDArray[np.int64], number: NDArray[np.int64], residue: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often a chain's numbers have decreased, or a residue has occurred again, before each run, (runs,)."""
    order = np.argsort(chain, kind="stable")
    falls = np.zeros(len(chain), np.int64)
    begins = (number[order][1:] < number[order][:-1]) | (residue[order][1:] == residue[order][:-1])
    falls[1:] = begins & (chain[order][1:] == chain[order][:-1])
    found = np.empty_like(falls)
    found[order] = np.cumsum(falls)
    return found


def _repeated(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of values that occurred before, (n,)."""
    order = np.argsort(values, kind="stable")
    places: NDArray[np.int64] = order[1:][values[order][1:] == values[order][:-1]]
    return places


def _twice(table: AtomTable, chain: NDArray[np.int64], residue: NDArray[np.int64], atoms: _Atoms) -> NDArray[np.bool_]:
    """Which runs belong to a chain with a duplicate atom, (runs,)."""
    found = _first_twice(table, chain, residue, atoms)
    return np.zeros(len(chain), bool) if len(found) == 0 else np.isin(chain, chain[atoms.run[found]])


def _first_twice(
    table: AtomTable, chain: NDArray[np.int64], residue: NDArray[np.int64], atoms: _Atoms
) -> NDArray[np.int64]:
    """Which backbone atoms occur a second time, with the same residue, role and alternate location."""
    if np.bincount(atoms.run * _BACKBONE + atoms.role).max(initial=0) <= 1:
        ahead = (chain[1:] > chain[:-1]) | ((chain[1:] == chain[:-1]) & (residue[1:] > residue[:-1]))
        if ahead.all():  # as in most files: each chain in one piece, with increasing numbers
            return np.zeros(0, np.int64)
    return _repeated(_codes(chain[atoms.run], residue[atoms.run], atoms.role, table.altloc[atoms.atoms]))


def _refuse_twice(
    table: AtomTable, runs: NDArray[np.int64], chain: NDArray[np.int64], residue: NDArray[np.int64], atoms: _Atoms
) -> None:
    atom = int(_first_twice(table, chain, residue, atoms).min())
    run = int(runs[atoms.run[atom]])
    raise InvalidStructure(
        "content",
        f"the atom {AtomRole(int(atoms.role[atom])).name} occurs twice; residues with the same chain, number and name "
        "cannot be distinguished",
        chain=table.chain_names[table.chain[run]],
        residue=table.residue_label(run),
    )


def _taken(
    table: AtomTable,
    runs: NDArray[np.int64],
    chain: NDArray[np.int64],
    residue: NDArray[np.int64],
    heads: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The residue used at the position of each, (residues,): itself, or the most probable of several alternatives.

    Residues with one number and insertion code are alternatives if all but the first have atoms with alternate
    locations; the one with the highest occupancy among such atoms is used.
    """
    taken = np.arange(len(heads))
    place = _codes(chain[heads], table.number[runs[heads]], table.insertion[runs[heads]])
    order = np.argsort(place, kind="stable")
    edges = np.flatnonzero(np.concatenate([[True], place[order][1:] != place[order][:-1], [True]]))
    by_residue = np.argsort(residue, kind="stable")
    begins = np.searchsorted(residue[by_residue], np.arange(len(heads) + 1))
    for group in np.flatnonzero(np.diff(edges) > 1).tolist():
        members = order[edges[group] : edges[group + 1]].tolist()
        occupancies = []
        for member in members:
            own = runs[by_residue[begins[member] : begins[member + 1]]].tolist()
            atoms = np.concatenate([np.arange(table.starts[run], table.starts[run + 1]) for run in own])
            alternative = atoms[table.altloc[atoms] > 0]
            occupancies.append(float(table.occupancies(alternative).max()) if len(alternative) else None)
        known = [occupancy for occupancy in occupancies if occupancy is not None]
        if known and None not in occupancies[1:]:
            best = members[occupancies.index(max(known))]
            taken[members] = best
    return taken


def _positions(
    table: AtomTable, atoms: _Atoms, residue: NDArray[np.int64], residues: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Coordinates (residues, 3, 3) and atoms (residues, 3), each residue from one alternate location where possible.

    The location with the highest sum of occupancies takes precedence, then atoms without one, then those of others.
    """
    place = residue * _BACKBONE + atoms.role
    chosen = np.arange(len(place))
    counts = np.bincount(place, minlength=residues * _BACKBONE)
    if counts.max() > 1:
        crowded = (counts.reshape(-1, _BACKBONE).max(1) > 1)[residue]
        doubtful = np.flatnonzero(crowded)
        altloc, occupancy = table.altloc[atoms.atoms[doubtful]], table.occupancies(atoms.atoms[doubtful])
        location = _codes(residue[doubtful], altloc)
        _, first, inverse = np.unique(location, return_index=True, return_inverse=True)
        sums = np.where(altloc[first] > 0, np.bincount(inverse, occupancy), -1.0)
        order = np.lexsort((first, -sums, residue[doubtful][first]))
        owners = residue[doubtful][first][order]
        best = order[np.concatenate([[True], owners[1:] != owners[:-1]])]
        is_best = np.isin(inverse, best)
        rank = np.lexsort((-occupancy, altloc > 0, ~is_best, place[doubtful]))
        ranked = place[doubtful][rank]
        taken = rank[np.concatenate([[True], ranked[1:] != ranked[:-1]])]
        chosen = np.concatenate([np.flatnonzero(~crowded), doubtful[taken]])
    coordinates = np.full((residues * _BACKBONE, 3), np.nan)
    coordinates[place[chosen]] = atoms.positions[chosen]
    indices = np.full(residues * _BACKBONE, -1, np.int64)
    indices[place[chosen]] = atoms.atoms[chosen]
    return coordinates.reshape(residues, _BACKBONE, 3), indices.reshape(residues, _BACKBONE)


def _chain_names(table: AtomTable, runs: NDArray[np.int64], chain: NDArray[np.int64]) -> dict[int, tuple[str, str]]:
    """Names of the chains, and their authors' names, by code, in the order of the file."""
    first = np.unique(chain, return_index=True)[1]
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    in_file = set(table.chain_names)
    free = default_names(in_file | set(table.segment_names))
    found = {}
    for place in np.sort(first).tolist():
        run = runs[place]
        author_name = table.chain_names[table.chain[run]]
        wanted = author_name or table.segment_names[table.segment[run]] or next(free)
        name, number = wanted, numbers.get(wanted, 1)
        while name in taken or (number > 1 and name in in_file):
            number += 1
            name = f"{wanted}_{number}"
        numbers[wanted] = number
        taken.add(name)
        found[int(chain[place])] = (name, author_name)
    return found
