"""Converts the PDB's column format, including its common variants, to a table of atoms."""

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from itertools import pairwise

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
from foldmint_tokenizer.structure.formats.numerals import parse_floats, parse_integers
from foldmint_tokenizer.structure.formats.pdb_lines import SHORTEST_ATOM, SPACE, Lines, split_lines
from foldmint_tokenizer.structure.left_out import LeftOut
from foldmint_tokenizer.structure.options import Limits
from foldmint_tokenizer.structure.residue_names import STANDARD, is_known_long_name

_UPPER = np.uint8(0xDF)
_FOUR_SPACES = np.uint32(int.from_bytes(b"    ", "little"))
# Hybrid-36: 9999 is followed by A000 to ZZZZ, then a000 to zzzz (cci.lbl.gov/hybrid_36).
_HYBRID_36 = re.compile(r"[A-Z][0-9A-Z]{3}|[a-z][0-9a-z]{3}")
_HYBRID_UPPER, _HYBRID_LOWER = 10_000 - 10 * 36**3, 10_000 + 16 * 36**3

# Atom names in their four columns, as sorted integers, and their roles.
_CODES = sorted(
    (int.from_bytes((b" " * place + name).ljust(4), "little"), role)
    for name, role in ROLES.items()
    for place in range(5 - len(name))
)
_NAME_CODES = np.array([code for code, _ in _CODES], np.uint32)
_NAME_ROLES = np.array([role for _, role in _CODES], np.int8)


def read_pdb(
    text: bytes, model_number: int, limits: Limits, *, short_names: bool = False
) -> tuple[AtomTable, list[LeftOut]]:
    """The atoms of one model, and the models left out. model_number: the file's number; 0: the first.

    short_names: residue names have three letters, chain names one, and numbers four digits, without exception.

    A model begins at MODEL, and ends at ENDMDL or the next MODEL. Records after END are read too: a part with the same
    atoms as an earlier one, name by name, is a further model; any other belongs to the same model.

    Raises InvalidStructure with field `content` or `model_number`.
    """
    lines = split_lines(text, limits)
    record = (lines.columns(0, 4, slice(None)) & _UPPER).view("<u4")[:, 0]
    atoms = np.flatnonzero((record == _code(b"ATOM")) | (record == _code(b"HETA")))
    if len(atoms) == 0:
        raise InvalidStructure("content", "the PDB file has no atoms")
    short = lines.lengths[atoms] < SHORTEST_ATOM
    if short.any():
        line = int(atoms[short.argmax()])
        raise InvalidStructure("content", f"line {line + 1} is too short for an atom: {lines.text(line)!r}")
    short_record, fourth = record & np.uint32(0xFFFFFF), record >> np.uint32(24)
    ends = np.flatnonzero((short_record == _code(b"END")) & (fourth < ord("A")))
    breaks = np.flatnonzero((short_record == _code(b"TER")) & (fourth < ord("A")))
    opens, closes = record == _code(b"MODE"), record == _code(b"ENDM")
    if (opens | closes).any():
        model, numbers = _models(lines, opens, closes, atoms)
    else:
        model, numbers = _repeats(lines, ends, atoms)
    chosen, others = choose_model(numbers, model_number)
    atoms = atoms[model == chosen] if others else atoms
    part = np.searchsorted(ends, atoms)
    section = part + np.searchsorted(breaks, atoms)
    sequence = np.flatnonzero(record == _code(b"SEQR"))
    return _table(lines, atoms, part, section, sequence, short_names), others


def _code(name: bytes) -> int:
    """A record's name as `read_pdb` compares it, ignoring case."""
    return int.from_bytes(name, "little")


def _models(
    lines: Lines, opens: NDArray[np.bool_], closes: NDArray[np.bool_], atoms: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[int]]:
    """The model of each atom, and the models' numbers: those of MODEL, otherwise their positions in the file."""
    bounds = np.flatnonzero(opens | closes)
    frames, model = np.unique(np.searchsorted(bounds, atoms), return_inverse=True)
    numbers = []
    for place, frame in enumerate(frames.tolist(), 1):
        opening = int(bounds[frame - 1]) if frame else None
        number = re.match(r"\s*(\d+)", lines.text(opening, 6, 14)) if opening is not None and opens[opening] else None
        numbers.append(int(number[1]) if number else place)
    return model, numbers


def _repeats(lines: Lines, ends: NDArray[np.int64], atoms: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
    """The model of each atom in a file divided by END records, and the models' numbers."""
    bounds = np.unique(np.searchsorted(atoms, ends))
    bounds = bounds[(bounds > 0) & (bounds < len(atoms))]
    if len(bounds) == 0:
        return np.zeros(len(atoms), np.int64), [1]
    seen: dict[bytes, int] = {}
    model = np.empty(len(atoms), np.int64)
    edges = [0, *bounds.tolist(), len(atoms)]
    for first, last in pairwise(edges):
        names = lines.columns(12, 27, atoms[first:last]).tobytes()
        model[first:last] = seen[names] = seen.get(names, -1) + 1
    return model, list(range(1, int(model.max()) + 2))


def _table(
    lines: Lines,
    atoms: NDArray[np.int64],
    part: NDArray[np.int64],
    section: NDArray[np.int64],
    sequence: NDArray[np.int64],
    short_names: bool,
) -> AtomTable:
    identity = np.zeros((len(atoms), 16), np.uint8)
    head = lines.columns(12, 27, atoms)
    identity[:, :10] = head[:, 5:]
    identity.view("<i4")[:, 3] = section
    words = identity.view("<u8")
    changes = np.ones(len(atoms), bool)
    changes[1:] = (words[1:, 0] != words[:-1, 0]) | (words[1:, 1] != words[:-1, 1])
    starts = np.flatnonzero(changes)
    runs = identity[starts, :10].copy()
    if short_names:
        runs[:, 3] = SPACE
    chain, chain_names, name, names = _names(runs[:, :5])
    number, insertion = _numbers(runs[:, 5:10], four_digits=short_names)
    segment, segment_names = _segments(lines, atoms, changes, starts)

    def floats(rows: NDArray[np.int64], first: int, last: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        return parse_floats(lines.columns(first, last, atoms[rows]))

    def positions(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        values, valid = parse_floats(lines.columns(30, 54, atoms[rows]).reshape(-1, 8))
        if not valid.all():
            place = int((~valid).argmax())
            line = int(atoms[rows[place // 3]])
            first = 30 + 8 * (place % 3)
            raise InvalidStructure(
                "content",
                f"{'xyz'[place % 3]} in line {line + 1} is not a number: {lines.text(line, first, first + 8)!r}",
                chain=lines.text(line, 21, 22),
                residue=" ".join(lines.text(line, 17, 27).split()),
            )
        return values.reshape(-1, 3)

    def occupancies(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        values, valid = floats(rows, 54, 60)
        return np.where(np.isnan(values), np.where(valid, 1.0, 0.0), values)  # blank: 1

    return AtomTable(
        role=_roles(head[:, :4], lines, atoms),
        altloc=np.where(head[:, 4] == SPACE, 0, head[:, 4].astype(np.int64)),
        hetatm=lines.columns(0, 1, atoms)[:, 0] & _UPPER == ord("H"),
        starts=np.append(starts, len(atoms)),
        chain=chain,
        chain_names=chain_names,
        segment=segment,
        segment_names=segment_names,
        name=name,
        names=names,
        part=part[starts],
        section=section[starts],
        number=number,
        insertion=insertion,
        entity_class=np.full(len(starts), EntityClass.UNKNOWN, np.int8),
        entity_tables=False,
        positions=positions,
        occupancies=occupancies,
        b_factors=lambda rows: floats(rows, 60, 66)[0],
        number_text=lambda run: lines.text(int(atoms[starts[run]]), 22, 26).strip(),
        sequences=_sequences(lines, sequence),
    )


def _roles(names: NDArray[np.uint8], lines: Lines, atoms: NDArray[np.int64]) -> NDArray[np.int8]:
    """Atom roles; a name may be anywhere in its four columns. An atom named CA with element calcium is not an alpha
    carbon.
    """
    code = np.ascontiguousarray(names).view("<u4")[:, 0]
    place = np.minimum(np.searchsorted(_NAME_CODES, code), len(_NAME_CODES) - 1)
    role = np.where(_NAME_CODES[place] == code, _NAME_ROLES[place], np.int8(AtomRole.OTHER))
    alpha = np.flatnonzero(role == AtomRole.CA)
    element = lines.columns(76, 78, atoms[alpha]) & _UPPER
    role[alpha[(element[:, 0] == ord("C")) & (element[:, 1] == ord("A"))]] = AtomRole.OTHER
    return role


def _names(text: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[str], NDArray[np.int64], list[str]]:
    """Chains and residue names of runs, as indices and names. text: (runs, 5), columns 18 to 22.

    Column 21 belongs to a four-letter residue name (HISE, TIP3, CYSF) or to a two-letter chain name. See
    `_has_two_letters`.
    """
    code = np.zeros((len(text), 8), np.uint8)
    code[:, :5] = text
    kinds, place = np.unique(code.view("<u8")[:, 0], return_inverse=True)
    chains: dict[str, int] = {}
    names: dict[str, int] = {}
    pairs = []
    texts = [kind.to_bytes(8, "little")[:5] for kind in kinds.tolist()]
    two_letters = _has_two_letters(texts, place.reshape(-1))
    for one in texts:
        name, chain = _name_and_chain(one, two_letters)
        pairs.append((chains.setdefault(chain, len(chains)), names.setdefault(name, len(names))))
    pair = np.array(pairs, np.int64)[place.reshape(-1)]
    return pair[:, 0], list(chains), pair[:, 1], list(names)


def _has_two_letters(texts: list[bytes], place: NDArray[np.int64]) -> bool:
    """Whether a file has two-letter chain names.

    texts: distinct values of columns 18 to 22. place: (runs,), the index of each run's value. True if two successive
    standard amino acids with different names share letters in columns 21 and 22, which would otherwise be two unknown
    names; or if all amino acids have letters there.
    """
    standard = np.array([text[:3].decode("latin-1") in STANDARD for text in texts])
    long = np.array([bool(text[3:4].strip() and text[4:].strip()) for text in texts])
    known = np.array([is_known_long_name(text[:4].decode("latin-1")) for text in texts])
    doubtful = standard & long & ~known
    if not doubtful.any() or not (standard & ~long).any():
        return bool(doubtful.any())
    letters = np.unique([text[3:] for text in texts], return_inverse=True)[1][place]
    follows = (place[1:] != place[:-1]) & (letters[1:] == letters[:-1])
    return bool((follows & doubtful[place[1:]] & doubtful[place[:-1]]).any())


@lru_cache(4096)
def _name_and_chain(text: bytes, two_letters: bool) -> tuple[str, str]:
    name, chain = (text[:3], text[3:]) if two_letters and text[4:].strip() else (text[:4], text[4:])
    return decode_name(name.strip(), "residue name"), decode_name(chain.strip(), "chain name")


def _numbers(text: NDArray[np.uint8], *, four_digits: bool) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Numbers and insertion codes of runs. text: (runs, 5), columns 23 to 27.

    The fifth column is a digit of the number if all runs have a digit there, or if the number fills the four columns
    before it: residue 10000 of a file without hybrid-36.
    """
    fifth = text[:, 4] - np.uint8(ord("0")) <= 9
    five = fifth & ((len(text) > 1 and bool(fifth.all())) | (text[:, 0] != SPACE)) & (not four_digits)
    insertion = np.where(five, SPACE, text[:, 4])
    number, valid = parse_integers(np.where((np.arange(5) == 4) & ~five[:, None], SPACE, text))
    number[~valid] = MISSING
    for run in np.flatnonzero(~valid):
        word = text[run, :4].tobytes().decode("latin-1")
        if _HYBRID_36.fullmatch(word):
            number[run] = int(word, 36) + (_HYBRID_UPPER if word[0].isupper() else _HYBRID_LOWER)
    return number, insertion


def _segments(
    lines: Lines, atoms: NDArray[np.int64], changes: NDArray[np.bool_], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[str]]:
    """Segment names of runs, from columns 73 to 76, as indices and names.

    None if these columns hold something else: charges, which differ within a residue, or the entry's id and the line
    number up to column 80, as before 1996.
    """
    if (lines.columns(72, 76, atoms).view("<u4") == _FOUR_SPACES).all():
        return np.zeros(len(starts), np.int64), [""]
    text = lines.columns(72, 80, atoms)
    segment = np.ascontiguousarray(text[:, :4]).view("<u4")[:, 0]
    apart = (segment[1:] != segment[:-1]) & ~changes[1:]
    digits = text[:, 4:] - np.uint8(ord("0")) <= 9
    numbered = (digits[:, 3] & (digits | (text[:, 4:] == SPACE)).all(1)).all()
    if apart.any() or numbered:
        return np.zeros(len(starts), np.int64), [""]
    found, place = np.unique(segment[starts], return_inverse=True)
    names = [decode_name(int(code).to_bytes(4, "little").strip(), "segment name") for code in found]
    return place.reshape(-1), names


def _sequences(lines: Lines, sequence: NDArray[np.int64]) -> Callable[[Collection[str]], dict[str, list[str]]]:
    def read(names: Collection[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        text = lines.columns(19, 70, sequence).tobytes()
        if not any(name.encode() in text for name in names):
            return found
        for line in sequence.tolist():
            found.setdefault(lines.text(line, 11, 12).strip(), []).extend(lines.text(line, 19, 70).split())
        return found

    return read
