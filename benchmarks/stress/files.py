"""Randomly mutated small structure files. The same number gives the same file."""

import bz2
import gzip
import lzma
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from backports import zstd

from benchmarks._common import ROOT

CORPUS = ROOT / "tests" / "stress" / "corpus"
_DATA = ROOT / "tests" / "data"
_CASES = ROOT / "tests" / "cases"
_PACKED = ("4cup", "1gbt", "1lcd", "2beg")
_KEPT = (".pdb", ".cif", ".bcif")
_COMPRESS: tuple[Callable[[bytes], bytes], ...] = (
    lambda plain: gzip.compress(plain, 1, mtime=0),
    lambda plain: zstd.compress(plain, 1),
    lambda plain: lzma.compress(plain, preset=0),
    lambda plain: bz2.compress(plain, 1),
)
# Maximum size of an input: inputs that are slow only because of their size are of no interest.
MOST_BYTES = 300_000

_WORDS = [
    *(b"data_", b"data_x\n", b"loop_\n", b"save_x\n", b"save_\n", b"global_\n", b"stop_\n", b"\n;", b"\n;\n", b"'"),
    *(b'"', b"#", b"$", b"_", b"?", b".", b" ", b"\t", b"\r\n", b"\n", b"\r", b"\x00", b"\x1b[2J", b"\xff\xfe"),
    *(b"_atom_site.Cartn_x\n", b"_atom_site.auth_seq_id ", b"_atom_site.pdbx_PDB_model_num ", b"_entity_poly.type "),
    *(b"\xef\xbb\xbf", b"\xed\xa0\x80"),
    *(word.encode() for word in ("ä", "\u202e", "\u0300", "\U0001f9ec", "\u2028", "\ue000")),
    *(b"ATOM  ", b"HETATM", b"MODEL        1\n", b"MODEL\n", b"ENDMDL\n", b"TER\n", b"END\n", b"CRYST1", b"ANISOU"),
    *(b"SEQRES   1 A  999  ALA\n", b"SSBOND", b"CONECT", b"REMARK 350", b"DBREF", b"HEADER", b"LINK  ", b"MSE"),
    *(
        b"UNK",
        b"HOH",
        b"DA",
        b" CA ",
        b" N  ",
        b"A000",
        b"ZZZZ",
        b"a000",
        b"zzzz",
        b"****",
        b"A0000",
        b"-999",
        b"10000",
    ),
]
_NUMBERS = [
    *b"nan -nan inf -inf 1e308 -1e308 1e309 1e-310 4.9e-324 1e38 3.5e38 1e6 1000000.1 -0 0 -1 1 2147483647".split(),
    *b"2147483648 -2147483648 -2147483649 4294967296 9223372036854775807 9223372036854775808".split(),
    *b"99999999999999999999 1_000 0x10 1.5(3) +5 1e - . ? 1d3 1,5 00000000000000000000001".split(),
    *(b"", b"0." + b"0" * 400 + b"1", b"9" * 400),
]
_OF_ENTITIES = re.compile(rb"^_(entity|entity_poly|entity_poly_seq|struct_asym|cell)\.", re.MULTILINE)
# Of PDB lines.
_COLUMNS = (
    *((0, 6), (6, 11), (12, 16), (16, 17), (17, 20), (17, 21), (20, 22), (21, 22), (22, 26), (22, 27), (26, 27)),
    *((30, 38), (54, 60), (72, 76), (76, 78), (79, 80)),
)
_NUMBER = re.compile(rb"(?<![\w.])-?\d+\.?\d*(?![\w.])")


def file(number: int, seed: int = 0) -> bytes:
    """The file of this number: a real one, small, changed in some places."""
    chance = chance_of("file", number, seed)
    content = chance.choice(file_seeds())
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        content = chance.choice(_FILE_CHANGES)(content, chance)[:MOST_BYTES]
    if chance.random() < 0.1:
        content = _packed(content, chance)
    return content


@cache
def file_seeds() -> list[bytes]:
    """Real files cut to some residues, files as other programs write them, and what was found before."""
    pdb = (_DATA / "1a8o.pdb").read_bytes().splitlines(keepends=True)
    first = next(place for place, line in enumerate(pdb) if line.startswith(b"ATOM"))
    atoms = [line for line in pdb if line.startswith((b"ATOM", b"HETATM"))]
    whole = (_DATA / "1a8o.cif").read_bytes()
    seeds = [
        b"".join(pdb[:first][:30] + atoms[:60] + [b"TER\n"] + atoms[-6:] + [b"END\n"]),
        b"".join(
            [b"MODEL        1\n", *atoms[:20], b"ENDMDL\n", b"MODEL        2\n", *atoms[:20], b"ENDMDL\n", b"END\n"]
        ),
        b"".join(atoms[:250]),
        _shortened(whole, 60),
        _shortened(whole, 60, polymer=True),
        *(
            _shortened(gzip.decompress((_DATA / f"{name}.cif.gz").read_bytes()), 80)
            for name in ("4cup", "1gbt", "1lcd", "2beg")
        ),
    ]
    seeds.append(gzip.compress(seeds[0], mtime=0))
    seeds += [one.read_bytes() for one in sorted(_CASES.iterdir()) if one.suffix in (".pdb", ".cif", ".pdbqt")]
    return seeds + [one.read_bytes() for one in sorted(CORPUS.glob("*")) if one.suffix in _KEPT]


def _shortened(text: bytes, atoms: int, *, polymer: bool = False) -> bytes:
    """An mmCIF file's first atoms; polymer: with its tables of entities and sequences."""
    lines = text.splitlines(keepends=True)
    head = next(place for place, line in enumerate(lines) if line.startswith(b"_atom_site."))
    columns = [line for line in lines[head : head + 40] if line.startswith(b"_atom_site.")]
    rows = [line for line in lines if line.startswith((b"ATOM ", b"HETATM "))]
    # The end as well, where ligands and waters are.
    parts = [lines[0], b"#\nloop_\n", *columns, *rows[:atoms], *rows[-6:], b"#\n"]
    if polymer:
        for block in re.split(rb"\n# ?\n", text):
            if _OF_ENTITIES.search(block):
                parts += [block, b"\n#\n"]
    return b"".join(parts)


def chance_of(*parts: object) -> random.Random:
    """A random generator determined by the parts."""
    return random.Random(":".join(map(str, parts)))  # noqa: S311 (chance, not secrets)


def place_in(content: bytes, chance: random.Random) -> int:
    """A place between bytes, the ends among them."""
    return chance.randrange(len(content) + 1)


def _span(content: bytes, chance: random.Random) -> tuple[int, int]:
    start = place_in(content, chance)
    return start, min(len(content), start + chance.choice((1, 2, 4, 8, 40, 81, 200, 2000)))


def flip(content: bytes, chance: random.Random) -> bytes:
    """Flip some bits."""
    if not content:
        return b"\x00"
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 3, 20))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, chance: random.Random) -> bytes:
    word = chance.choice(_WORDS)
    place = place_in(content, chance)
    return content[:place] + word + content[place + len(word) :]


def insert(content: bytes, chance: random.Random) -> bytes:
    """Insert a word or noise."""
    place = place_in(content, chance)
    word = chance.choice(_WORDS) if chance.random() < 0.8 else chance.randbytes(chance.choice((1, 4, 64)))
    return content[:place] + word + content[place:]


def delete(content: bytes, chance: random.Random) -> bytes:
    """Delete a stretch."""
    start, stop = _span(content, chance)
    return content[:start] + content[stop:]


def repeat(content: bytes, chance: random.Random) -> bytes:
    """Repeat a stretch, possibly hundreds of times."""
    start, stop = _span(content, chance)
    return content[:stop] + content[start:stop] * chance.choice((1, 2, 10, 300)) + content[stop:]


def truncate(content: bytes, chance: random.Random) -> bytes:
    """Truncate."""
    return content[: place_in(content, chance)]


def _splice(content: bytes, chance: random.Random) -> bytes:
    other = chance.choice(file_seeds())
    return content[: place_in(content, chance)] + other[place_in(other, chance) :]


def _lines(content: bytes, chance: random.Random) -> bytes:
    """Lines exchanged, repeated, dropped or moved by a column."""
    lines = content.splitlines(keepends=True) or [b""]
    some = [chance.randrange(len(lines)) for _ in range(2)]
    match chance.randrange(5):
        case 0:
            lines[some[0]], lines[some[1]] = lines[some[1]], lines[some[0]]
        case 1:
            lines[some[0] : some[0]] = [lines[some[1]]] * chance.choice((1, 2, 50))
        case 2:
            del lines[some[0]]
        case 3:
            lines[some[0]] = b" " + lines[some[0]]
        case _:
            chance.shuffle(lines)
    return b"".join(lines)


def _number(content: bytes, chance: random.Random) -> bytes:
    """A number, or one in each of many lines, replaced by one at some limit."""
    found = list(_NUMBER.finditer(content))
    if not found:
        return content
    instead = chance.choice(_NUMBERS)
    chosen = chance.sample(found, min(len(found), chance.choice((1, 1, 3, 30))))
    for match in sorted(chosen, key=lambda match: -match.start()):
        start, stop = match.span()
        put = instead.rjust(stop - start) if chance.random() < 0.5 else instead
        content = content[:start] + put + content[stop:]
    return content


def _field(content: bytes, chance: random.Random) -> bytes:
    """A column of a PDB line, or a word of any line, replaced."""
    lines = content.splitlines(keepends=True) or [b""]
    place = chance.randrange(len(lines))
    line, word = lines[place], chance.choice(_WORDS + _NUMBERS)
    start, stop = chance.choice(_COLUMNS)
    lines[place] = line[:start] + word[: stop - start].rjust(stop - start) + line[stop:]
    return b"".join(lines)


_FILE_CHANGES: list[Callable[[bytes, random.Random], bytes]] = [
    *(
        flip,
        _overwrite,
        insert,
        delete,
        repeat,
        truncate,
        _splice,
        _lines,
        _lines,
        _number,
        _number,
        _field,
        _field,
    )
]


def _packed(content: bytes, chance: random.Random) -> bytes:
    """Compressed: correctly, twice, in parts, damaged, or with trailing data."""
    compress = chance.choice(_COMPRESS)
    packed = compress(content)
    match chance.randrange(6):
        case 0:
            return compress(packed)
        case 1:
            return packed + packed
        case 2:
            return flip(packed, chance)
        case 3:
            return packed[: place_in(packed, chance)]
        case 4:
            return packed + chance.choice(_WORDS)
        case _:
            return packed


def regressions(folder: Path = CORPUS) -> list[Path]:
    """The kept corpus: files that were trouble once, or might be."""
    return sorted(path for path in folder.glob("*") if path.suffix in _KEPT)
