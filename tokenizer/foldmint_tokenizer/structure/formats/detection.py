"""Detects a structure file's format by its content; unsupported formats are rejected by name."""

import re
import tarfile
from pathlib import PurePath

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.options import Format

SUPPORTED = "PDB, PDBQT, PDBx/mmCIF and BinaryCIF"

_HEAD = 2**20  # bytes examined
# Blank lines and comments, then the beginning of the first other line.
_FIRST_LINE = re.compile(rb"(?:\xef\xbb\xbf)?(?:[\s\0]++|#[^\r\n]*+)*+([^\r\n]{0,80})")
_PDB_ATOM = re.compile(rb"(?:\A|[\r\n])(?:\xef\xbb\xbf)?((?:ATOM[ \t]|HETATM)[^\r\n]{0,200})", re.IGNORECASE)
_PDB_RECORD = re.compile(
    rb"(?:ANISOU|ATOM|AUTHOR|BRANCH|CAVEAT|CISPEP|COMPND|CONECT|CRYST1|DBREF[12]?|END|ENDMDL|EXPDTA|FORMUL|HEADER|HELIX"
    rb"|HET|HETATM|HETNAM|HETSYN|JRNL|KEYWDS|LINK|MASTER|MDLTYP|MODEL|MODRES|MTRIX\d|NUMMDL|OBSLTE|ORIGX\d|PARENT|PFRMAT"
    rb"|REMARK|REVDAT|ROOT|SCALE\d|SEQADV|SEQRES|SHEET|SITE|SOURCE|SPLIT|SPRSDE|SSBOND|TARGET|TER|TITLE|USER)(?![^\s\d])",
    re.IGNORECASE,
)
_CIF_BLOCK = re.compile(rb"(?:\A|[\r\n])data_\S", re.IGNORECASE)
# The beginning of an mmCIF file, or of one without data_.
_CIF = re.compile(rb"data_|loop_|_[a-z0-9_]+\.[a-z0-9_]+", re.IGNORECASE)
# Maps of MessagePack with a first key of up to 31 letters.
_MESSAGE_PACK = re.compile(rb"[\x81-\x8f]|\xde..|\xdf....", re.DOTALL)
_BINARY_CIF = re.compile(
    rb"(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa0-\xbf]|\xd9.)(?:encoder|dataBlocks|version)", re.DOTALL
)
_FLOAT = rb"[+-]?(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?"

_ARCHIVE = "is an archive: {}; unpack it, or use the command `foldmint tokenize`, which reads its members"
_CONVERT = "{} is not supported; convert it to PDB or mmCIF"
_BEGINNINGS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), message)
    for pattern, message in (
        (rb"PK\x03\x04.{26}[^\0]{0,200}?\.npy", _CONVERT.format("NumPy's .npz")),
        (rb"PK(?:\x03\x04|\x05\x06)", "the file " + _ARCHIVE.format("zip")),
        (rb".{257}ustar", "the file " + _ARCHIVE.format("tar")),
        (rb"7z\xbc\xaf\x27\x1c", "the file is an archive: 7z, which is not supported; unpack it"),
        (rb"Rar!\x1a\x07", "the file is an archive: rar, which is not supported; unpack it"),
        (rb"\x1f[\x9d\xa0]", "the file is compressed by `compress` (.Z), which is not supported; unpack it"),
        (rb"\x04\x22\x4d\x18|LZIP", "the file is compressed by lz4 or lzip, which is not supported; unpack it"),
        (rb"FCMP", "only the command `foldmint tokenize`, with the extra foldmint[foldcomp], reads Foldcomp .fcz"),
        (rb"\x89HDF\r\n", _CONVERT.format("HDF5")),
        (rb"CDF[\x01\x02\x05]", _CONVERT.format("NetCDF (AMBER trajectory)")),
        (rb"PAR1", _CONVERT.format("Parquet")),
        (rb"\x93NUMPY", _CONVERT.format("NumPy's .npy")),
        (rb"\x80[\x02-\x05]", _CONVERT.format("a pickle (PyMOL session .pse, or another)")),
        (rb"(?:\x54\0\0\0|\0\0\0\x54|\x54\0{7}|\0{7}\x54)CORD", _CONVERT.format("the trajectory DCD")),
        (rb"\0\0\x07[\xcb\xe3]", _CONVERT.format("the trajectory GROMACS .xtc")),
        (rb"\0\0\x07\xc9", _CONVERT.format("the trajectory GROMACS .trr")),
        (rb".{208}MAP ", "a CCP4 or MRC map is not supported: it is a density, not a structure"),
        (rb"%PDF-|\x89PNG|\xff\xd8\xff|GIF8", "the file is a document or picture, not a structure"),
        (rb"SQLite format 3\0", _CONVERT.format("an SQLite database")),
        (
            rb"\xff\xfe|\xfe\xff|\0\0\xfe\xff|[^\0]\0[^\0]\0[^\0]\0",
            "UTF-16 or UTF-32 text is not supported; save it as UTF-8",
        ),
    )
)
_FIRST_LINES: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), message)
    for pattern, message in (
        (rb"<!doctype html|<html", "the file is an HTML page, perhaps an error page from a download"),
        (rb"\{\s*\"data_[^\"]*\"\s*:\s*\{", _CONVERT.format("mmJSON")),
        (rb"[\[{]", _CONVERT.format("JSON")),
        (rb"<", _CONVERT.format("XML")),
        (rb">", "FASTA is not supported: it contains sequences, not structures"),
        (rb"@<TRIPOS>", _CONVERT.format("mol2")),
        (rb"PSF\b", "PSF is not supported: it contains no coordinates; use PDB or mmCIF"),
        (
            rb"%VERSION|%FLAG",
            "AMBER prmtop is not supported: it contains no coordinates; use PDB or mmCIF",
        ),
        (rb"\*", _CONVERT.format("CHARMM .crd or .cor")),
    )
)
# Formats that cannot be recognized by content.
_SUFFIXES = {
    ".crd": "CHARMM or AMBER .crd",
    ".gro": "GROMACS .gro",
    ".mdcrd": "AMBER .mdcrd",
    ".mol": "MDL mol",
    ".sdf": "SDF",
    ".top": "a topology",
    ".tpr": "GROMACS .tpr",
    ".itp": "GROMACS .itp",
    ".xyz": "XYZ",
}


def detect_format(text: bytes, name: str = "") -> Format:
    """The format of a structure file: `pdb` (PDBQT too), `mmcif` or `bcif`.

    text: the file, decompressed; only its first MiB is examined. A UTF-8 byte order mark, blank lines and comments
    before the first line are ignored. name: the file's name, used only if the content is ambiguous.

    Raises InvalidStructure for any other format, naming it if it is known.
    """
    head = text[:_HEAD]
    if _BINARY_CIF.match(head):
        return "bcif"
    first_line = _FIRST_LINE.match(head)
    first = b"" if first_line is None else first_line[1]
    if _CIF.match(first):
        return "mmcif"
    for beginning, message in _BEGINNINGS:
        if beginning.match(head):
            raise InvalidStructure("content", message)
    if _MESSAGE_PACK.match(head):
        what = "MMTF" if b"mmtfVersion" in head else "MessagePack data other than BinaryCIF"
        raise InvalidStructure("content", _CONVERT.format(what))
    atom = _first_atom(head)
    block = _first_block(head if atom is None else head[: atom.start()])
    if atom is not None and block is None:
        if _is_pqr(atom[1]):
            reason = "PQR is not supported unless its columns are those of PDB; convert it to PDB or mmCIF"
            raise InvalidStructure("content", reason)
        return "pdb"
    if _PDB_RECORD.match(first):
        return "pdb"
    if block is not None:
        return "mmcif"
    for beginning, message in _FIRST_LINES:
        if beginning.match(first):
            xml = b"PDBx" in head[:4096] and message == _CONVERT.format("XML")
            raise InvalidStructure("content", _CONVERT.format("PDBML (XML)") if xml else message)
    if (known := _by_lines(head)) is not None:
        raise InvalidStructure("content", _CONVERT.format(known))
    if _is_old_tar(head):
        raise InvalidStructure("content", "the file " + _ARCHIVE.format("tar"))
    if (suffix := PurePath(name).suffix.lower()) in _SUFFIXES:
        raise InvalidStructure("content", _CONVERT.format(_SUFFIXES[suffix]))
    begins = f"; it begins with {first[:40].decode('utf-8', 'replace')!r}" if first.isascii() and first else ""
    raise InvalidStructure("content", f"unknown format; supported are {SUPPORTED}{begins}")


def _first_atom(head: bytes) -> re.Match[bytes] | None:
    """An atom's line in PDB format: first as in most files, since `find` is much faster than the general search."""
    first = len(head)
    for name in (b"\nATOM ", b"\nHETATM"):
        place = head.find(name, 0, first)
        first = first if place < 0 else place
    return _PDB_ATOM.match(head, first) or _PDB_ATOM.search(head)


def _first_block(head: bytes) -> re.Match[bytes] | None:
    return _CIF_BLOCK.search(head) if any(name in head for name in (b"data_", b"DATA_", b"Data_")) else None


def _is_pqr(line: bytes) -> bool:
    """Whether an atom's line is PQR with separated columns: coordinates, charge and radius between blanks."""
    if re.fullmatch(rb"(?: *" + _FLOAT + rb" *){3}", line[30:54]) and all(
        re.fullmatch(rb" *" + _FLOAT + rb" *", line[start : start + 8]) for start in (30, 38, 46)
    ):
        return False
    numbers = line.split()[-5:]
    return 9 <= len(line.split()) <= 12 and all(re.fullmatch(rb"[+-]?\d*\.?\d+\.?", number) for number in numbers)


def _by_lines(text: bytes) -> str | None:
    """The name of a format recognized by its first lines."""
    lines = text[:4096].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    lines += [b""] * 4
    if re.search(rb"V[23]000\s*$", lines[3]):
        return "SDF or mol"
    count = re.compile(rb"\s*\d+\s*")
    if count.fullmatch(lines[0]) and re.match(rb"\s*[A-Za-z0-9]+(?:\s+[+-]?\d+\.\d*){3}", lines[2]):
        return "XYZ"
    if count.fullmatch(lines[1]) and re.match(rb"[ \d]{5}.{10}[ \d]{5}(?: *-?\d+\.\d+){3}", lines[2]):
        return "GROMACS .gro"
    if re.fullmatch(rb"\s*\d+(?:\s+\S+)*\s*", lines[1]) and re.match(rb"(?: *-?\d+\.\d{7}){3,6}\s*$", lines[2]):
        return "AMBER .rst7 or .inpcrd"
    return None


def _is_old_tar(text: bytes) -> bool:
    """Whether the file begins with a tar header without magic bytes, as before 1988."""
    if len(text) < 512 or b"\0" not in text[:100]:
        return False
    try:
        tarfile.TarInfo.frombuf(text[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
