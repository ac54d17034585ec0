"""The format of a file, told by its content; and formats that are not read, told by their names."""

import io
import pickle
import tarfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldmint_tokenizer import InvalidStructure
from foldmint_tokenizer.structure.formats.detection import detect_format
from foldmint_tokenizer.structure.options import Format

ATOM = b"ATOM      1  N   MET A   1      38.198  19.582  28.127  1.00 54.11           N\n"
MMCIF = b"data_1ABC\nloop_\n_atom_site.id\n1\n"
BCIF: bytes = msgpack.packb({"encoder": "x", "version": "0.3.0", "dataBlocks": []})

READ: dict[str, tuple[bytes, Format]] = {
    "atoms alone": (ATOM, "pdb"),
    "a header": (b"HEADER    HYDROLASE\n" + ATOM, "pdb"),
    "records without atoms": (b"HEADER    HYDROLASE\nEND\n", "pdb"),
    "lowercase records": (ATOM.lower(), "pdb"),
    "a byte order mark": (b"\xef\xbb\xbf" + ATOM, "pdb"),
    "blank lines first": (b"\n \r\n\n" + ATOM, "pdb"),
    "remarks of a program": (b"# written by X\n\n" + ATOM, "pdb"),
    "a title without record": (b"my favorite protein\n" + ATOM, "pdb"),
    "carriage returns": (b"REMARK x\r" + ATOM.replace(b"\n", b"\r") * 3, "pdb"),
    "a title of Latin-1": (b"TITLE     \xb5-crystal\n" + ATOM, "pdb"),
    "PDBQT": (b"ROOT\n" + ATOM.rstrip() + b"  0.101 N \nENDROOT\nTORSDOF 0\n", "pdb"),
    "CASP": (b"PFRMAT TS\nTARGET T0001\nMODEL 1\nPARENT N/A\n" + ATOM, "pdb"),
    "a PQR whose columns are those of PDB": (ATOM[:54] + b"  0.1592 1.8240\n", "pdb"),
    "coordinates that touch": (ATOM[:30] + b"-138.198-119.582-128.127" + ATOM[54:], "pdb"),
    "mmCIF": (MMCIF, "mmcif"),
    "DATA_ in capitals": (MMCIF.upper(), "mmcif"),
    "mmCIF after comments": (b"\xef\xbb\xbf#\\#CIF_1.1\n# \n\n" + MMCIF, "mmcif"),
    "mmCIF without data_": (b"loop_\n_atom_site.id\n1\n", "mmcif"),
    "mmCIF after a line of something else": (b"Content-Type: chemical/x-mmcif\n\n" + MMCIF + b"ATOM 1 N\n", "mmcif"),
    "mmCIF with ATOM in a line": (MMCIF + ATOM, "mmcif"),
    "BinaryCIF": (BCIF, "bcif"),
    "BinaryCIF that begins with its blocks": (msgpack.packb({"dataBlocks": [], "version": "0.3.0"}), "bcif"),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read(name: str) -> None:
    content, expected = READ[name]
    assert detect_format(content) == expected


def test_structures_of_the_tests(data: Path) -> None:
    corpus = data.parent / "stress" / "corpus"
    found = {path: detect_format(path.read_bytes()) for path in [*corpus.glob("*.[pc]*"), *data.glob("1a8o.*")]}
    assert len(found) > 40
    for path, form in found.items():
        assert form == {".pdb": "pdb", ".cif": "mmcif"}[path.suffix]


def zipped(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, ATOM)
    return stream.getvalue()


def tarred(form: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        member = tarfile.TarInfo("a.pdb")
        member.size = len(ATOM)
        archive.addfile(member, io.BytesIO(ATOM))
    return stream.getvalue()


def old_tar() -> bytes:
    """Before POSIX there was no magic: its place is empty, and the checksum fits."""
    header = bytearray(tarred(tarfile.USTAR_FORMAT))
    header[257:265] = bytes(8)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def saved(save: Any, **arrays: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


REFUSED: dict[str, tuple[bytes, str]] = {
    "gro": (
        b"Protein in water\n    1\n    1MET      N    1   0.697   1.122   1.624\n   2.0   2.0   2.0\n",
        "GROMACS .gro is not supported; convert it to PDB or mmCIF",
    ),
    "mol2": (b"# comment\n\n@<TRIPOS>MOLECULE\nx\n", "mol2 is not supported"),
    "sdf": (b"\n  RDKit\n\n  3  2  0  0  0  0            999 V2000\n", "SDF or mol is not supported"),
    "xyz": (b"2\nwater\nO 0.0 0.0 0.1\nH 0.0 0.7 -0.4\n", "XYZ is not supported"),
    "mmtf": (msgpack.packb({"mmtfVersion": "1.0", "numAtoms": 3}), "MMTF is not supported"),
    "other MessagePack": (msgpack.packb({"a": 1}), "MessagePack data other than BinaryCIF"),
    "pqr": (b"REMARK x\nATOM 1 N MET 1 38.198 19.582 28.127 0.1592 1.8240\n", "PQR is not supported"),
    "pqr with chains": (b"ATOM 1 N MET A 1 38.19 19.58 28.12 0.15 1.82\n", "PQR is not supported"),
    "dcd": (b"\x54\0\0\0CORD" + bytes(80), "DCD is not supported"),
    "xtc": (b"\0\0\x07\xcb" + bytes(80), ".xtc is not supported"),
    "trr": (b"\0\0\x07\xc9" + bytes(80), ".trr is not supported"),
    "charmm": (b"* title\n*\n   2  EXT\n", "CHARMM .crd or .cor is not supported"),
    "psf": (b"PSF CMAP\n\n 1 !NTITLE\n", "PSF is not supported"),
    "prmtop": (b"%VERSION  VERSION_STAMP = V0001.000\n%FLAG TITLE\n", "AMBER prmtop is not supported"),
    "rst7": (
        b"default_name\n    2  0.1\n  1.0000000  2.0000000  3.0000000  4.0000000  5.0000000  6.0000000\n",
        "AMBER .rst7",
    ),
    "fasta": (b">sp|P1|X\nMKV\n", "FASTA is not supported"),
    "html": (b"\n<!DOCTYPE html>\n<html>not found</html>", "HTML page"),
    "mmjson": (b'{"data_1ABC": {"atom_site": {}}}', "mmJSON is not supported"),
    "json": (b'{"tokens": [1]}', "JSON is not supported"),
    "pdbml": (b'<?xml version="1.0"?>\n<PDBx:datablock datablockName="1ABC">', "PDBML (XML) is not supported"),
    "xml": (b"<Error><Code>NoSuchKey</Code></Error>", "XML is not supported"),
    "npz": (saved(np.savez, x=np.zeros(3)), "NumPy's .npz is not supported"),
    "npy": (saved(lambda stream: np.save(stream, np.zeros(3))), "NumPy's .npy is not supported"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(80), "HDF5 is not supported"),
    "netcdf": (b"CDF\x02" + bytes(80), "NetCDF"),
    "parquet": (b"PAR1" + bytes(80), "Parquet is not supported"),
    "pickle": (pickle.dumps({"session": 1}), "a pickle"),
    "zip": (zipped("a.pdb"), "is an archive: zip"),
    "tar": (tarred(tarfile.PAX_FORMAT), "is an archive: tar"),
    "gnu tar": (tarred(tarfile.GNU_FORMAT), "is an archive: tar"),
    "old tar": (old_tar(), "is an archive: tar"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(80), "is an archive: 7z"),
    "rar": (b"Rar!\x1a\x07\x00" + bytes(80), "is an archive: rar"),
    "Z": (b"\x1f\x9d" + bytes(80), "compressed by `compress`"),
    "map": (b"\x01\0\0\0" * 52 + b"MAP " + bytes(80), "CCP4 or MRC map"),
    "foldcomp": (b"FCMP" + bytes(80), "foldmint[foldcomp]"),
    "utf-16": (("\ufeff" + ATOM.decode()).encode("utf-16-le"), "UTF-16"),
    "utf-16 without mark": (ATOM.decode().encode("utf-16-le"), "UTF-16"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(80), "document or picture"),
    "words": (
        b"404: Not Found",
        "unknown format; supported are PDB, PDBQT, PDBx/mmCIF and BinaryCIF; it begins with '404",
    ),
    "blanks": (b" \n" * 10, "unknown format"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_named(name: str) -> None:
    content, reason = REFUSED[name]
    with pytest.raises(InvalidStructure) as caught:
        detect_format(content)
    assert caught.value.field == "content"
    assert reason in caught.value.reason


def test_the_name_tells_where_the_content_does_not() -> None:
    with pytest.raises(InvalidStructure, match=r"GROMACS \.itp is not supported"):
        detect_format(b"[ moleculetype ]"[2:], "folder/topol.ITP")
    assert detect_format(ATOM, "model.xyz") == "pdb"


@pytest.mark.parametrize("text", [b"\n", b"#\n", b"A", b"\nATOM ", b"\r", b"data", b"1\n", b"\0"])
def test_long_files_take_no_time(text: bytes) -> None:
    start = time.process_time()
    with suppress(InvalidStructure):
        detect_format(text * (2**25 // len(text)))
    assert time.process_time() - start < 2


@given(st.binary(max_size=600))
def test_anything_is_a_format_or_refused(content: bytes) -> None:
    with suppress(InvalidStructure):
        assert detect_format(content) in ("pdb", "mmcif", "bcif")
