"""Converts data blocks of mmCIF and BinaryCIF files to a table of atoms."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.atom_table import (
    MISSING,
    ROLES,
    AtomRole,
    AtomTable,
    EntityClass,
    choose_model,
    decode_name,
)
from foldmint_tokenizer.structure.formats.cif_block import CifBlock, InvalidCell
from foldmint_tokenizer.structure.left_out import LeftOut, LeftOutKind

_ATOMS = "atom_site"
_LISTED = 20
# Types of _entity_poly, and of _entity.
_POLYPEPTIDES = (b"polypeptide", b"cyclic-pseudo-peptide")
_NUCLEIC_ACIDS = (b"polydeoxyribonucleotide", b"polyribonucleotide", b"peptide nucleic acid")
_NOT_IN_CHAIN = (b"water", b"non-polymer", b"branched", b"macrolide")


def read_blocks(blocks: Sequence[CifBlock], model_number: int) -> tuple[AtomTable, list[LeftOut]]:
    """The atoms of one model of all data blocks, and the models and blocks left out.

    model_number: the file's number; 0: the first model of each block.

    Raises InvalidStructure with field `content` or `model_number`.
    """
    with_atoms = [block for block in blocks if block.rows(_ATOMS)]
    if not with_atoms:
        raise InvalidStructure("content", "the mmCIF file has no atoms")
    left_out = []
    empty = [block.name for block in blocks if not block.rows(_ATOMS)]
    if empty:
        left_out.append(LeftOut(LeftOutKind.OTHER_BLOCK, "", len(empty), tuple(empty[:_LISTED])))
    models = [_models(block) for block in with_atoms]
    known = list(dict.fromkeys(number for model in models for number in model.numbers))
    _, others = choose_model(known, model_number)
    tables = []
    for part, (block, model) in enumerate(zip(with_atoms, models, strict=True)):
        if not model_number or model_number in model.numbers:
            rows, _ = model.choose(model_number)
            tables.append(_table(block, part, rows))
    return _joined(tables), left_out + others


class _Models(NamedTuple):
    """The model of each row of atoms, (rows,), as an index into the models' numbers."""

    numbers: list[int]
    model: NDArray[np.int64] | None

    def choose(self, number: int) -> tuple[NDArray[np.int64] | None, list[LeftOut]]:
        """The rows of a model; None for all rows."""
        place, others = choose_model(self.numbers, number)
        return (None if self.model is None else np.flatnonzero(self.model == place)), others


def _models(block: CifBlock) -> _Models:
    model_numbers = block.integers(_ATOMS, "pdbx_PDB_model_num")
    if model_numbers is None or (model_numbers == model_numbers[0]).all():
        return _Models([1 if model_numbers is None or model_numbers[0] == MISSING else int(model_numbers[0])], None)
    numbers, first, model = np.unique(model_numbers, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return _Models([0 if number == MISSING else number for number in numbers[order].tolist()], place[model])


def _table(block: CifBlock, part: int, rows: NDArray[np.int64] | None) -> AtomTable:
    def text(*items: str) -> NDArray[np.bytes_] | None:
        """The first of the items, and where it is unknown, the next."""
        found: NDArray[np.bytes_] | None = None
        for item in items:
            column = block.text(_ATOMS, item, rows) if found is None or (found == b"").any() else None
            if column is not None:
                found = column if found is None else np.where(found == b"", column, found)
        return found

    atom_name, residue = text("label_atom_id", "auth_atom_id"), text("label_comp_id", "auth_comp_id")
    chain, asym = text("auth_asym_id", "label_asym_id"), block.text(_ATOMS, "label_asym_id", rows)
    number = text("auth_seq_id", "label_seq_id")
    for column, item in ((atom_name, "label_atom_id"), (residue, "label_comp_id"), (number, "label_seq_id")):
        if column is None:
            raise InvalidStructure("content", f"_atom_site has neither {item} nor {item.replace('label', 'auth')}")
    assert atom_name is not None and residue is not None and number is not None  # noqa: S101, PT018 (for mypy)
    count = len(atom_name)
    blank = np.zeros(count, "S1")
    chain, asym = (blank if chain is None else chain), (blank if asym is None else asym)
    insertion = block.text(_ATOMS, "pdbx_PDB_ins_code", rows)
    position, entity = block.text(_ATOMS, "label_seq_id", rows), block.text(_ATOMS, "label_entity_id", rows)
    changes = np.zeros(count, bool)
    changes[0] = True
    for column in (residue, chain, asym, number, insertion, position, entity):
        if column is not None:
            changes[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(changes)
    chain_code, chain_names = _coded(chain[starts], "chain name")
    segment, segment_names = _coded(asym[starts], "chain name")
    name, names = _coded(residue[starts], "residue name")
    tables = _EntityTables(block)
    group = block.text(_ATOMS, "group_PDB", rows)
    number_text = number[starts]

    def at(local: NDArray[np.int64]) -> NDArray[np.int64]:
        return local if rows is None else rows[local]

    def positions(local: NDArray[np.int64]) -> NDArray[np.float64]:
        try:
            axes = [block.floats(_ATOMS, f"Cartn_{axis}", at(local)) for axis in "xyz"]
        except InvalidCell as error:
            run = int(np.searchsorted(starts, local[np.flatnonzero(at(local) == error.row)[0]], "right")) - 1
            raise InvalidStructure(
                error.field,
                error.reason,
                chain=chain_names[chain_code[run]],
                residue=f"{names[name[run]]} {number_text[run].decode('latin-1')}",
            ) from error
        if any(values is None for values in axes):
            raise InvalidStructure("content", "_atom_site has no Cartn_x, Cartn_y and Cartn_z")
        return np.stack([values for values in axes if values is not None], 1)

    def optional(item: str, default: float) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
        def read(local: NDArray[np.int64]) -> NDArray[np.float64]:
            try:
                values = block.floats(_ATOMS, item, at(local))
            except InvalidStructure:  # backbones do not need it
                values = None
            return np.full(len(local), default) if values is None else np.where(np.isnan(values), default, values)

        return read

    return AtomTable(
        role=_roles(atom_name, block.text(_ATOMS, "type_symbol", rows)),
        altloc=_altlocs(block, rows, count),
        hetatm=np.zeros(count, bool) if group is None else group == b"HETATM",
        starts=np.append(starts, count),
        chain=chain_code,
        chain_names=chain_names,
        segment=segment,
        segment_names=segment_names,
        name=name,
        names=names,
        part=np.full(len(starts), part),
        section=np.full(len(starts), part),
        number=_integers(number_text),
        insertion=_insertions(insertion, starts),
        entity_class=tables.classify(
            None if entity is None else entity[starts], None if position is None else position[starts], name, names
        ),
        entity_tables=tables.exist,
        positions=positions,
        occupancies=optional("occupancy", 1.0),
        b_factors=optional("B_iso_or_equiv", np.nan),
        number_text=lambda run: number_text[run].decode("latin-1"),
        sequences=lambda _: {},
    )


def _roles(names: NDArray[np.bytes_], elements: NDArray[np.bytes_] | None) -> NDArray[np.int8]:
    role = np.full(len(names), AtomRole.OTHER, np.int8)
    for name, meaning in ROLES.items():
        role[names == name] = meaning
    if elements is not None:
        alpha = np.flatnonzero(role == AtomRole.CA)
        role[alpha[np.char.upper(elements[alpha]) == b"CA"]] = AtomRole.OTHER
    return role


def _altlocs(block: CifBlock, rows: NDArray[np.int64] | None, count: int) -> NDArray[np.int64]:
    letters = block.text(_ATOMS, "label_alt_id", rows)
    if letters is None or not (there := letters != b"").any():
        return np.zeros(count, np.int64)
    found = np.zeros(count, np.int64)
    if letters.dtype.itemsize == 1:
        found[there] = letters[there].view(np.uint8)
    else:
        found[there] = 256 + np.unique(letters[there], return_inverse=True)[1]
    return found


def _coded(values: NDArray[np.bytes_], what: str) -> tuple[NDArray[np.int64], list[str]]:
    """Names as indices, and the distinct names."""
    names, place = np.unique(values, return_inverse=True)
    return place.reshape(-1), [decode_name(name, what) for name in names.tolist()]


def _integers(texts: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Residue numbers; MISSING for values that are not integers."""
    try:
        return np.where(texts == b"", b"0", texts).astype(np.int64) + np.where(texts == b"", MISSING, 0)
    except (ValueError, OverflowError):
        values = [text.decode("latin-1") for text in texts.tolist()]
        sound = [value.removeprefix("-").isascii() and value.removeprefix("-").isdigit() for value in values]
        return np.array([int(value[:18]) if ok else MISSING for value, ok in zip(values, sound, strict=True)], np.int64)


def _insertions(codes: NDArray[np.bytes_] | None, starts: NDArray[np.int64]) -> NDArray[np.uint8]:
    if codes is None:
        return np.full(len(starts), ord(" "), np.uint8)
    own = codes[starts]
    if (np.char.str_len(own) > 1).any():
        code = own[np.char.str_len(own) > 1][0].decode("latin-1")
        raise InvalidStructure("content", f"the insertion code {code[:20]!r} has more than one character")
    letters = own.astype("S1").view(np.uint8)
    return np.where(letters == 0, np.uint8(ord(" ")), letters)


class _EntityTables:
    """_entity, _entity_poly and _entity_poly_seq. exist: whether they list which residues belong to polymers."""

    def __init__(self, block: CifBlock) -> None:
        polymers = self._pairs(block, "entity_poly", "entity_id", "type")
        self._types = self._pairs(block, "entity", "id", "type") | polymers
        self._components: dict[bytes, set[bytes]] = {}
        ids, components = (block.text("entity_poly_seq", item) for item in ("entity_id", "mon_id"))
        if ids is not None and components is not None:
            for entity, component in zip(ids.tolist(), components.tolist(), strict=True):
                self._components.setdefault(entity, set()).add(component)
        self.exist = any(kind.startswith(_POLYPEPTIDES) for kind in polymers.values())

    @staticmethod
    def _pairs(block: CifBlock, category: str, key: str, value: str) -> dict[bytes, bytes]:
        keys, values = block.text(category, key), block.text(category, value)
        if keys is None or values is None:
            return {}
        return dict(zip(keys.tolist(), np.char.lower(values).tolist(), strict=True))

    def classify(
        self,
        entity: NDArray[np.bytes_] | None,
        position: NDArray[np.bytes_] | None,
        name: NDArray[np.int64],
        names: Sequence[str],
    ) -> NDArray[np.int8]:
        """The tables' classification of runs, (runs,) int8, `EntityClass`. position: label_seq_id."""
        if not self.exist or entity is None:
            return np.full(len(name), EntityClass.UNKNOWN, np.int8)
        in_sequence = np.zeros(len(name), bool) if position is None else position != b""
        entities, code = np.unique(entity, return_inverse=True)
        kinds = [self._types.get(one, b"") for one in entities.tolist()]
        classes = np.array([_entity_class(kind) for kind in kinds], np.int8)[code]
        pairs, pair = np.unique(code * len(names) + name, return_inverse=True)
        listed = [self._lists(entities[one // len(names)], names[one % len(names)]) for one in pairs.tolist()]
        doubtful = (classes == EntityClass.PROTEIN) & ~(in_sequence & np.array(listed, bool)[pair])
        return np.where(doubtful, np.int8(EntityClass.UNKNOWN), classes)

    def _lists(self, entity: bytes, name: str) -> bool:
        components = self._components.get(entity)
        return components is None or name.encode() in components


def _entity_class(kind: bytes) -> EntityClass:
    if kind.startswith(_POLYPEPTIDES):
        return EntityClass.PROTEIN
    if kind.startswith(_NUCLEIC_ACIDS):
        return EntityClass.NUCLEIC_ACID
    return EntityClass.NOT_IN_CHAIN if kind.startswith(_NOT_IN_CHAIN) else EntityClass.UNKNOWN


def _joined(tables: Sequence[AtomTable]) -> AtomTable:
    """The tables of several data blocks, concatenated."""
    if len(tables) == 1:
        return tables[0]
    atoms = np.cumsum([0, *(table.starts[-1] for table in tables)])
    runs = np.cumsum([0, *(len(table) for table in tables)])

    def codes(values: str, names: str) -> tuple[NDArray[np.int64], list[str]]:
        known: dict[str, int] = {}
        found = []
        for table in tables:
            own = [known.setdefault(name, len(known)) for name in getattr(table, names)]
            found.append(np.array(own, np.int64)[getattr(table, values)])
        return np.concatenate(found), list(known)

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(table, name) for table in tables])

    def by_atom(name: str) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
        def read(rows: NDArray[np.int64]) -> NDArray[np.float64]:
            owner = np.searchsorted(atoms, rows, "right") - 1
            parts = [getattr(table, name)(rows[owner == place] - atoms[place]) for place, table in enumerate(tables)]
            found = np.concatenate(parts)
            order = np.argsort(owner, kind="stable")
            result = np.empty_like(found)
            result[order] = found
            return result

        return read

    def number_text(run: int) -> str:
        place = int(np.searchsorted(runs, run, "right")) - 1
        return tables[place].number_text(run - int(runs[place]))

    chain, chain_names = codes("chain", "chain_names")
    segment, segment_names = codes("segment", "segment_names")
    name, names = codes("name", "names")
    return AtomTable(
        role=column("role"),
        altloc=column("altloc"),
        hetatm=column("hetatm"),
        starts=np.append(
            np.concatenate([table.starts[:-1] + start for table, start in zip(tables, atoms, strict=False)]), atoms[-1]
        ),
        chain=chain,
        chain_names=chain_names,
        segment=segment,
        segment_names=segment_names,
        name=name,
        names=names,
        part=column("part"),
        section=column("section"),
        number=column("number"),
        insertion=column("insertion"),
        entity_class=column("entity_class"),
        entity_tables=any(table.entity_tables for table in tables),
        positions=by_atom("positions"),
        occupancies=by_atom("occupancies"),
        b_factors=by_atom("b_factors"),
        number_text=number_text,
        sequences=lambda _: {},
    )
