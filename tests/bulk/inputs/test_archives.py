"""Archives: ranges of plain tars, twins, archives within archives, damage."""

import io
import itertools
import tarfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from foldmint_bulk.errors import UnreadableInput
from foldmint_bulk.inputs.base import InputOptions, RawStructure, Unreadable
from foldmint_bulk.inputs.registry import KINDS
from foldmint_bulk.inputs.tar_headers import scan
from helpers.bulk_inputs import contents, plan, read

Members = Sequence[tuple[str, bytes]]


def write_tar(path: Path, members: Members, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=form) as archive:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def numbered(count: int, suffix: str = "pdb.gz") -> list[tuple[str, bytes]]:
    return [(f"MGYP{number:06d}.{suffix}", f"structure {number} ".encode() * (number % 97)) for number in range(count)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_ranges_are_read_as_the_whole(tmp_path: Path, form: int) -> None:
    names = [name if number % 5 else f"{'deep/' * 25}{name}" for number, (name, _) in enumerate(numbered(205))]
    members = [(name, content) for name, (_, content) in zip(names, numbered(205), strict=True)]
    members.insert(100, ("README.md", b"read me"))
    path = write_tar(tmp_path / "atlas.tar", members, form=form)
    units = plan("tar", path, structures=20)
    assert [unit.structures for unit in units] == [20] * 10 + [5]
    assert all(one.stop == two.start for one, two in itertools.pairwise(units))
    expected = {f"{path}!{name}": content for name, content in members if name.endswith(".gz")}
    assert contents(read(units)) == expected
    assert [one.source for one in read(units)] == [*expected]
    assert len(read(units[4:5])) == 20


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_are_read_as_by_python(tmp_path: Path, form: int) -> None:
    path = tmp_path / "some.tar"
    long = "x" * 90
    with tarfile.open(path, "w", format=form) as archive:
        for number, name in enumerate((f"a/{long}/{'y' * 60}.pdb", "folder", "link", "hard", "é.cif", "plain.cif")):
            member = tarfile.TarInfo(name)
            kinds = {"folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
            member.type = kinds.get(name, tarfile.REGTYPE)
            member.linkname = "plain.cif" if name in ("link", "hard") else ""
            if form == tarfile.PAX_FORMAT and number % 2 == 0:
                member.pax_headers = {"comment": "this one is read by Python's module" if number == 4 else ""}
            member.size = 700 * number if name.endswith(("pdb", "cif")) else 0
            archive.addfile(member, io.BytesIO(b"a" * member.size))
    with tarfile.open(path) as archive:
        expected = [(member.name, member.isfile(), member.isdir()) for member in archive]
    with path.open("rb") as stream:
        found = [*scan(stream)]
    assert [(member.name.rstrip("/"), member.file, member.folder) for member in found] == expected
    assert all(one.end == two.start for one, two in itertools.pairwise(found))


TWINS = [
    member
    for number in range(12)
    for member in (
        (f"AF-{number:02d}-F1-model_v4.cif.gz", f"cif {number}".encode()),
        (f"AF-{number:02d}-F1-model_v4.pdb.gz", b"pdb"),
        (f"AF-{number:02d}-F1-predicted_aligned_error_v4.json.gz", b"json"),
    )
]
ORDERS = {
    "as AlphaFold DB has them": TWINS,
    "backwards": TWINS[::-1],
    "by kind": sorted(TWINS, key=lambda member: member[0][-6:]),
    "by kind, backwards": sorted(TWINS, key=lambda member: member[0][-6:], reverse=True),
}


@pytest.mark.parametrize("order", ORDERS)
def test_pdb_files_with_an_mmcif_file_are_skipped_and_counted(tmp_path: Path, order: str) -> None:
    members = [*ORDERS[order], ("alone.pdb", b"alone")]
    skipped = Counter[str]()
    path = write_tar(tmp_path / "proteome.tar", members)
    units = plan("tar", path, structures=5, skipped=skipped)
    assert [unit.structures for unit in units] == [5, 5, 3]
    expected = {name: content for name, content in members if name.endswith(".cif.gz") or name == "alone.pdb"}
    assert contents(read(units)) == {f"{path}!{name}": content for name, content in expected.items()}
    assert skipped == {".json": 12, "PDB files of which there are mmCIF files": 12}
    zipped = write_zip(tmp_path / "proteome.zip", members)
    units = plan("archive", zipped, skipped=skipped)
    assert [unit.structures for unit in units] == [13]
    assert contents(read(units)) == {f"{zipped}!{name}": content for name, content in expected.items()}
    assert skipped == {".json": 24, "PDB files of which there are mmCIF files": 24}
    # Of what can only be read from its beginning, each structure is read once.
    packed = write_tar(tmp_path / "proteome.tar.gz", members, "w:gz")
    counted = Counter[str]()
    packed_units = plan("archive", packed, skipped=counted)
    found = [one.source.split("!")[1].split(".")[0] for one in read(packed_units, skipped=counted)]
    assert sorted(found) == sorted(name.split(".")[0] for name in expected)
    assert counted[".json"] == 12
    assert counted.total() == 24
    if "kind, backwards" not in order:
        assert counted["PDB files of which there are mmCIF files"] == 12
        assert contents(read(plan("archive", packed))).keys() == {f"{packed}!{name}" for name in expected}


def test_archives_within_archives_are_failures(tmp_path: Path, data: Path) -> None:
    inner = write_tar(tmp_path / "inner.tar", [("one.pdb", b"one")]).read_bytes()
    members = [("a.pdb", b"a"), ("inner.tar", inner), ("other.tar.gz", b"..."), ("b.pdb", b"b")]
    refused = Unreadable("an archive within an archive is not read; extract it first")
    for kind, path in (
        ("tar", write_tar(tmp_path / "outer.tar", members)),
        ("archive", write_tar(tmp_path / "outer.tgz", members, "w:gz")),
        ("archive", write_zip(tmp_path / "outer.zip", members)),
    ):
        assert contents(read(plan(kind, path))) == {
            f"{path}!a.pdb": b"a",
            f"{path}!inner.tar": refused,
            f"{path}!other.tar.gz": refused,
            f"{path}!b.pdb": b"b",
        }
    only = write_tar(tmp_path / "only.tar", members[1:3])
    assert [*contents(read(plan("tar", only))).values()] == [refused, refused]


@pytest.mark.parametrize("damage", ["cut in a member", "cut in a header", "header"])
def test_what_comes_before_damage_is_read(tmp_path: Path, damage: str) -> None:
    members = numbered(50)
    path = write_tar(tmp_path / "atlas.tar", members)
    whole = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[33].offset
    path.write_bytes(
        whole[: offset + 600]
        if damage == "cut in a member"
        else whole[: offset + 100]
        if damage == "cut in a header"
        else whole[:offset] + b"?" * 512 + whole[offset + 512 :]
    )
    units = plan("tar", path, structures=10)
    found: list[RawStructure] = []
    for unit in units[:-1]:
        found += KINDS["tar"].read(unit, InputOptions(), Counter())
    rest = KINDS["tar"].read(units[-1], InputOptions(), Counter())
    with pytest.raises(UnreadableInput, match=r"atlas\.tar: the archive is damaged or cut off"):
        found.extend(rest)
    assert contents(found) == {f"{path}!{name}": content for name, content in members[:33]}


def test_a_tar_that_is_compressed_in_spite_of_its_name(tmp_path: Path) -> None:
    members = numbered(5)
    path = write_tar(tmp_path / "some.tar", members, "w:gz")
    (unit,) = plan("tar", path, structures=2)
    assert contents(read([unit])) == {f"{path}!{name}": content for name, content in members}
