"""Archives of real chains for bulk jobs, with what harms them; and the plain loop that bulk jobs are compared with."""

import gzip
import io
import itertools
import random
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from foldmint_bulk.job import ModelIdentity
from foldmint_bulk.output.parts import to_tokens
from foldmint_client.errors import FoldmintError
from foldmint_client.io.archives import Members
from foldmint_client.io.token_writers import ParquetWriter
from foldmint_maintenance.datasets.records import Record
from foldmint_tokenizer import Assignment, InvalidStructure, StructureTokenizer

_NAMES = (
    *("ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE"),
    *("LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL"),
)
_THREE = dict(zip("ARNDCQEGHILKMFPSTWYV", _NAMES, strict=True))
_COLUMNS = (
    *("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id"),
    *("label_entity_id", "label_seq_id", "Cartn_x", "Cartn_y", "Cartn_z", "auth_seq_id", "auth_asym_id"),
)
BOMB_BYTES = 40 * 2**20
"""Of a file that is not a structure, but needs more memory than a parser of half a GiB has to be found out."""


@dataclass
class Archives:
    """What `write_archives` wrote. sources: of structures that have tokens, in order. bombs: of files that are to
    exceed a parser's memory.
    """

    paths: list[Path] = field(default_factory=list)
    structures: int = 0
    bombs: list[str] = field(default_factory=list)


def write_archives(records: Iterable[Record], folder: Path, members: int, *, harm: bool, seed: int = 0) -> Archives:
    """Write archives of so many structures each: PDB and mmCIF, plain and packed; every fourth archive is a tar.gz.

    harm: add files that are no structures or are damaged, two that need more memory than a parser has, and an archive
    that is cut off.
    """
    made, chooser = Archives(), random.Random(seed)  # noqa: S311 (no secrets)
    folder.mkdir(parents=True, exist_ok=True)
    for number, group in enumerate(_batches(records, members)):
        packed = number % 4 == 3
        path = folder / f"{number:04d}.tar{'.gz' * packed}"
        with (
            tarfile.open(path, "w:gz" if packed else "w", compresslevel=1) if packed else tarfile.open(path, "w") as tar
        ):
            for place, record in enumerate(group):
                name, content = _file(record, place % 4)
                _add(tar, f"{number:04d}/{name}", content)
                made.structures += 1
                if harm and chooser.random() < 0.02:
                    _add(tar, f"{number:04d}/{place}-harmed.pdb", _harmed(content, chooser))
            if harm and number in (0, 3):
                bomb = f"{number:04d}/bomb.cif.gz"
                _add(tar, bomb, gzip.compress(_bomb(), 1))
                made.bombs.append(f"{path}!{bomb}")
        made.paths.append(path)
    if harm:
        torn = folder / "torn.tar"
        whole = made.paths[0].read_bytes()
        torn.write_bytes(whole[: len(whole) // 2])
        made.paths.append(torn)
    return made


def _batches(records: Iterable[Record], count: int) -> Iterator[list[Record]]:
    rest = iter(records)
    while group := list(itertools.islice(rest, count)):
        yield group


def _file(record: Record, kind: int) -> tuple[str, bytes]:
    text = (pdb_text if kind < 2 else mmcif_text)(record).encode()
    name = f"{record.id}.{'pdb' if kind < 2 else 'cif'}"
    return (f"{name}.gz", gzip.compress(text, 1, mtime=0)) if kind % 2 else (name, text)


def _harmed(content: bytes, chooser: random.Random) -> bytes:
    return (b"", b"no structure at all\n", content[: len(content) // 3], b"HETATM" * 100)[chooser.randrange(4)]


def _bomb() -> bytes:
    """An mmCIF file without atoms, of many small values."""
    return b"data_bomb\nloop_\n_a.b\n" + b"x\n" * (BOMB_BYTES // 2)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _atoms(record: Record) -> Iterator[tuple[str, str, int, tuple[float, float, float]]]:
    """Name of the atom, of the residue, its number, and where it is."""
    for letter, number, atoms in zip(record.sequence, record.residue_index.tolist(), record.coordinates, strict=True):
        for name, place in zip(("N", "CA", "C"), atoms.tolist(), strict=True):
            yield name, _THREE.get(letter, "UNK"), number % 10_000, tuple(place)


def pdb_text(record: Record) -> str:
    """A PDB file of a chain."""
    lines = [
        f"ATOM  {serial % 100_000:5d}  {name:<3s} {residue} A{number:4d}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           {name[0]}"
        for serial, (name, residue, number, (x, y, z)) in enumerate(_atoms(record), 1)
    ]
    return "\n".join([*lines, "TER", "END", ""])


def mmcif_text(record: Record) -> str:
    """An mmCIF file of a chain."""
    lines = [
        f"ATOM {serial} {name[0]} {name} . {residue} A 1 {number} {x:.3f} {y:.3f} {z:.3f} {number} A"
        for serial, (name, residue, number, (x, y, z)) in enumerate(_atoms(record), 1)
    ]
    head = [f"data_{record.id}", "loop_", *(f"_atom_site.{column}" for column in _COLUMNS)]
    return "\n".join([*head, *lines, "#", ""])


def identity_of(tokenizer: StructureTokenizer) -> ModelIdentity:
    """The model of a tokenizer, as jobs name it."""
    model = tokenizer.model
    return ModelIdentity(
        None, model.name, model.encoder_digest, model.codebook.version, model.codebook.digest, model.lever is not None
    )


def plain_loop(
    tokenizer: StructureTokenizer, paths: Iterable[Path], out: Path, assignment: Assignment = Assignment.INDEPENDENT
) -> tuple[int, int]:
    """Tokenize archives one structure after another into one Parquet file; what cannot be read is passed over.

    Returns the numbers of structures and of residues.
    """
    model, structures, residues = identity_of(tokenizer), 0, 0
    with out.open("wb") as stream:
        writer = ParquetWriter(stream)
        for path in paths:
            try:
                for name, content in Members(path).read():
                    if isinstance(content, FoldmintError):
                        continue
                    try:
                        tokens = to_tokens(tokenizer.tokenize(content, assignment=assignment), model)
                    except InvalidStructure:
                        continue
                    writer.write(f"{path}!{name}", tokens)
                    structures, residues = structures + 1, residues + len(tokens)
            except FoldmintError:  # cut off
                continue
        writer.close()
    return structures, residues


def rows_of(out: Path, *, parts: Iterable[str] | None = None) -> pa.Table:
    """The rows of a Parquet file, or of a job's parts in the order of their units."""
    if out.is_file():
        return parquet.read_table(out)
    named = sorted(out.glob("parts/*/*.parquet")) if parts is None else [out / part for part in parts]
    return pa.concat_tables([parquet.read_table(part) for part in named]).replace_schema_metadata(None)


def differing(plain: pa.Table, bulk: pa.Table) -> list[str]:
    """The columns in which two tables of tokens differ; `rows` if their numbers do. Floats count as equal to 1e-4."""
    if plain.num_rows != bulk.num_rows:
        return ["rows"]
    return [
        name
        for name in plain.column_names
        if plain.column(name).to_pylist() != bulk.column(name).to_pylist() and not _near(name, plain, bulk)
    ]


def _near(name: str, plain: pa.Table, bulk: pa.Table) -> bool:
    if not pa.types.is_floating(plain.schema.field(name).type):
        return False
    pairs: Iterator[tuple[float | None, float | None]] = zip(
        plain.column(name).to_pylist(), bulk.column(name).to_pylist(), strict=True
    )
    return all(a == b or (a is not None and b is not None and abs(a - b) < 1e-4) for a, b in pairs)
