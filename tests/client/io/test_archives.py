"""Members of tar and zip archives: which are structures, and what comes of archives that are damaged."""

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foldmint_client.errors import InvalidStructure, UnreadableInput
from foldmint_client.io.archives import Members

FILES = {"./a.pdb": b"1", "deep/b.cif.gz": gzip.compress(b"2"), "deep/c.BCIF.zst": b"3" * 2000, "d.pdbqt": b""}
OTHERS = {"readme.txt": b"x", "deep/more.txt": b"x", "data.json": b"{}", "deep/._a.pdb": b"x", "inner.tar": b"x"}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.xz": lzma.compress,
    ".tar.bz2": bz2.compress,
    ".tar.zst": zstd.compress,
    ".TAR": bytes,
}


def tar(files: Iterable[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for kind, name in ((tarfile.SYMTYPE, "link.pdb"), (tarfile.FIFOTYPE, "pipe.pdb"), (tarfile.DIRTYPE, "x.pdb")):
            other = tarfile.TarInfo(name)
            other.type, other.linkname = kind, "/etc/passwd"
            archive.addfile(other)
    return stream.getvalue()


def zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
        archive.mkdir("x.pdb")
        link = zipfile.ZipInfo("link.pdb")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return stream.getvalue()


def everything() -> list[tuple[str, bytes]]:
    return [*FILES.items(), *OTHERS.items()]


def read(path: Path, content: bytes) -> tuple[list[tuple[str, bytes | InvalidStructure]], Members, str]:
    """The members, and what the archive fails with."""
    path.write_bytes(content)
    members = Members(path, limit=10_000)
    found: list[tuple[str, bytes | InvalidStructure]] = []
    try:
        found.extend(members.read())  # what comes before an error stays
    except UnreadableInput as error:
        return found, members, str(error)
    return found, members, ""


@pytest.mark.parametrize("suffix", COMPRESS)
def test_structures_of_a_tar(tmp_path: Path, suffix: str) -> None:
    found, members, error = read(tmp_path / f"x{suffix}", COMPRESS[suffix](tar(everything())))
    assert (found, error) == ([*FILES.items()], "")
    assert members.skipped == {".txt": 2, ".json": 1, ".tar": 1, "hidden": 1, "links and devices": 2}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tars_of_every_kind(tmp_path: Path, form: int) -> None:
    name = "n" * 60 + "/" + "m" * 90 + ".pdb"
    assert read(tmp_path / "x.tar", tar([(name, b"1")], form))[0] == [(name, b"1")]
    packed = tmp_path / "wrong-name.tar.gz"  # what it is, its content tells
    assert read(packed, lzma.compress(tar(FILES.items())))[0] == [*FILES.items()]


def test_structures_of_a_zip(tmp_path: Path) -> None:
    found, members, error = read(tmp_path / "x.zip", zipped(everything()))
    assert (found, error) == ([*FILES.items()], "")
    assert members.skipped == {".txt": 2, ".json": 1, ".tar": 1, "hidden": 1, "links and devices": 1}


class Asked:
    """Wants one member, and notes what it was asked."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str) -> bool:
        self.names.append(name)
        return name == "d.pdbqt"


def test_what_is_not_wanted_is_not_read(tmp_path: Path) -> None:
    for name, content in (("x.tar", tar(everything())), ("x.zip", zipped(everything()))):
        (tmp_path / name).write_bytes(content)
        asked = Asked()
        assert [*Members(tmp_path / name).read(asked)] == [("d.pdbqt", b"")]
        assert asked.names == [*FILES]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_torn_tar_gives_the_members_before_the_tear(tmp_path: Path, suffix: str) -> None:
    many = [(f"{number}.pdb", bytes([number]) * 4_000) for number in range(20)]
    whole = COMPRESS[suffix](tar(many))
    for cut in (len(whole) // 3, len(whole) // 2, len(whole) - len(whole) // 4):
        found, _, error = read(tmp_path / f"x{suffix}", whole[:cut])
        assert found == many[: len(found)]
        if COMPRESS[suffix] is bytes:
            assert len(found) == cut // (4096 + 512)
        assert error.startswith(f"{tmp_path}/x{suffix}: the archive is damaged or cut off: ")


def test_a_tar_that_ends_between_members_is_told(tmp_path: Path) -> None:
    whole = tar(FILES.items())
    found, _, error = read(tmp_path / "x.tar", whole[: 2 * 512])
    assert found == [("./a.pdb", b"1")]
    assert "it ends without the mark of its end" in error


def test_what_follows_the_end_is_told(tmp_path: Path) -> None:
    twice = tar(FILES.items()) + tar(FILES.items())
    found, _, error = read(tmp_path / "x.tar", twice)
    assert len(found) == len(FILES)
    assert "something else follows its end" in error
    assert read(tmp_path / "x.tar", tar(FILES.items()) + bytes(300_000))[2] == ""
    assert "something else" in read(tmp_path / "x.tar", tar(FILES.items()) + bytes(300_000) + b"x")[2]
    damaged = bytearray(tar(FILES.items()))
    damaged[2 * 512] ^= 1  # the second member's header
    found, _, error = read(tmp_path / "x.tar", bytes(damaged))
    assert (len(found), "damaged" in error) == (1, True)


def test_damaged_zips(tmp_path: Path) -> None:
    whole = zipped(FILES.items())
    assert "damaged or cut off" in read(tmp_path / "x.zip", whole[:-30])[2]
    damaged = bytearray(whole)
    place = whole.index(b"c.BCIF.zst") + len("c.BCIF.zst") + 2
    damaged[place : place + 2] = b"\xff\xff"
    found, _, error = read(tmp_path / "x.zip", bytes(damaged))
    assert error == ""
    assert [name for name, content in found if isinstance(content, InvalidStructure)] == ["deep/c.BCIF.zst"]


def test_members_that_are_too_long(tmp_path: Path) -> None:
    files = {"long.pdb": bytes(50_000_000), "short.pdb": b"1"}
    for name, content in (("x.tar.gz", gzip.compress(tar(files.items()))), ("x.zip", zipped(files.items()))):
        (tmp_path / name).write_bytes(content)
        tracemalloc.start()
        found = [*Members(tmp_path / name, limit=10_000).read()]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert isinstance(found[0][1], InvalidStructure)
        assert "50000000 bytes; at most 10000 are taken" in str(found[0][1])
        assert found[1:] == [("short.pdb", b"1")]
        assert peak < 3_000_000


def test_headers_that_are_bombs(tmp_path: Path) -> None:
    """A name of 100 MB, which tarfile would read at once."""
    bomb = tarfile.TarInfo("././@LongLink")
    bomb.type, bomb.size = tarfile.GNUTYPE_LONGNAME, 100_000_000
    (tmp_path / "x.tgz").write_bytes(gzip.compress(bomb.tobuf(tarfile.GNU_FORMAT) + bytes(bomb.size)))
    tracemalloc.start()
    with pytest.raises(UnreadableInput, match="headers of more than 16 MiB"):
        [*Members(tmp_path / "x.tgz").read()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.tar", "none.zip"):
        with pytest.raises(UnreadableInput, match="cannot be read: No such file"):
            [*Members(tmp_path / name).read()]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.sampled_from([".tar", ".tgz", ".zip"]), st.data())
def test_any_damage_is_told_or_read(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    files = [(name, content[:50]) for name, content in FILES.items()]
    content = bytearray({".tar": tar, ".zip": zipped}.get(suffix, lambda _: gzip.compress(tar(files), mtime=0))(files))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    found, _, _ = read(tmp_path / f"x{suffix}", bytes(content[: data.draw(st.integers(1, len(content)))]))
    assert all(isinstance(member, bytes | InvalidStructure) for _, member in found)
