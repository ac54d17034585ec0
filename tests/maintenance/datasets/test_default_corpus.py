"""The sets rebuilt from a package, which is made here around an excerpt of the real database."""

import hashlib
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from foldmint_maintenance.cli import main
from foldmint_maintenance.datasets import default_corpus
from foldmint_maintenance.datasets.default_corpus import MEMBER, Listed, listed_chains, rebuild
from foldmint_maintenance.datasets.promod3 import read_structure_db
from foldmint_maintenance.datasets.records import Record, read_parquet
from foldmint_maintenance.errors import InvalidSet
from helpers.support import DATA, missing

# Of the excerpt's chains in the sets that the default model was trained and measured on.
TRAIN = "1a2aca01ce25ffa6f2124891ff4fa10be755be104a5f02e4708dd77f8db683cd"
VAL = "3f1530f2ce01e342f36ec38c787a10e0d72069e3d20bb1a7182c00731e34e813"

Package = Callable[..., Path]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Listed]:
    """The list, of the excerpt's chains alone; a test may take some out, or change them."""
    whole = listed_chains()
    listed = {name: whole[name] for name in ("1SC6_B", "2QTV_C", "3B0F_B", "4YNX_A")}
    monkeypatch.setattr(default_corpus, "listed_chains", lambda: listed)
    return listed


@pytest.fixture
def database() -> Path:
    return DATA / "structure_db.dat"


def _ar(members: dict[str, bytes]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


def _tar(name: str, content: bytes, kind: bytes = tarfile.REGTYPE, mode: str = "xz") -> bytes:
    """An archive of two members, the second of which is asked about."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{mode}") as tar:  # type: ignore[call-overload]
        for member, text in (
            (tarfile.TarInfo("./usr/share/promod3/other.dat"), b"x"),
            (tarfile.TarInfo(name), content),
        ):
            member.size = len(text)
            if text is content:
                member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO(text))
    return file.getvalue()


@pytest.fixture
def package(tmp_path: Path, database: Path) -> Package:
    """Makes a package of the data.tar that is given, or a good one."""

    def make(tar: bytes | None = None, ending: str = ".xz", before: bytes = b"odd") -> Path:
        path = tmp_path / "promod3-data_1_all.deb"
        tar = _tar("./" + MEMBER, database.read_bytes()) if tar is None else tar
        path.write_bytes(_ar({"debian-binary": b"2.0\n", "control.tar.xz": before, f"data.tar{ending}": tar}))
        return path

    return make


def test_the_list_holds_both_sets_and_no_chain_twice(chains: list[Record]) -> None:
    listed = listed_chains()
    for split, count, residues in (("train", 18_846, 4_099_297), ("val", 1_014, 251_321)):
        lengths = [row.length for row in listed.values() if row.split == split]
        assert (len(lengths), sum(lengths)) == (count, residues)
    assert len(listed) == 18_846 + 1_014
    for record in chains:
        assert listed[record.id] == ("val", len(record.sequence), record.residue_index[0])
    assert default_corpus.LIST.stat().st_size < 150_000


@pytest.mark.parametrize("kind", ["database", "package"])
def test_the_sets_are_those_the_model_was_trained_and_measured_on(
    kind: str, database: Path, package: Package, listed: dict[str, Listed], tmp_path: Path
) -> None:
    steps: list[str] = []
    source = database if kind == "database" else package()
    train, val = rebuild(tmp_path / "new" / "sets", source, verify=False, log=steps.append)
    assert (train.path, train.chains, train.residues, train.sha256) == (
        *(tmp_path / "new" / "sets" / "train.parquet", 2, 36 + 40, TRAIN),
    )
    assert (val.path, val.chains, val.residues, val.sha256) == (
        *(tmp_path / "new" / "sets" / "val.parquet", 2, 134 + 43, VAL),
    )
    assert [record.id for record in read_parquet(train.path)] == ["2QTV_C", "4YNX_A"]
    assert [record.id for record in read_parquet(val.path)] == ["1SC6_B", "3B0F_B"]
    assert steps == [f"reading {source.name}"]


def test_chains_that_are_not_listed_stay_out(database: Path, listed: dict[str, Listed], tmp_path: Path) -> None:
    del listed["2QTV_C"]
    train, _ = rebuild(tmp_path, database, verify=False)
    assert [record.id for record in read_parquet(train.path)] == ["4YNX_A"]


def test_a_package_made_by_dpkg_is_read(database: Path, listed: dict[str, Listed], tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        missing("dpkg-deb", "Debian and its kin have it")
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = ["Package: promod3-data", "Version: 1", "Architecture: all", "Maintainer: none <n@example.org>"]
    (root / "DEBIAN" / "control").write_text("\n".join([*control, "Description: a test", ""]))
    (root / MEMBER).parent.mkdir(parents=True)
    shutil.copy(database, root / MEMBER)
    path = tmp_path / "made.deb"
    root.chmod(0o755)
    (root / "DEBIAN").chmod(0o755)
    subprocess.run(["dpkg-deb", "-Zxz", "--build", root, path], check=True, capture_output=True)
    _, val = rebuild(tmp_path / "sets", path, verify=False)
    assert val.sha256 == VAL


@pytest.mark.parametrize("kind", ["database", "package"])
def test_another_package_is_refused_unless_asked_for(
    kind: str,
    database: Path,
    package: Package,
    listed: dict[str, Listed],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = database if kind == "database" else package()
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(InvalidSet, match=rf"{source.name} is not that of promod3-data .*{found}"):
        rebuild(tmp_path / "sets", source)
    assert not (tmp_path / "sets").exists()
    monkeypatch.setattr(default_corpus, "MEMBER_SHA256" if kind == "database" else "PACKAGE_SHA256", found)
    assert rebuild(tmp_path / "sets", source)[1].sha256 == VAL


def test_a_database_that_the_list_does_not_fit_is_refused(
    database: Path, listed: dict[str, Listed], tmp_path: Path
) -> None:
    listed["1SC6_B"] = listed["1SC6_B"]._replace(first_residue=2)
    with pytest.raises(InvalidSet, match="1SC6_B is not the listed stretch"):
        rebuild(tmp_path, database, verify=False)
    listed["1SC6_B"] = listed["1SC6_B"]._replace(first_residue=1, length=133)
    with pytest.raises(InvalidSet, match="1SC6_B is not the listed stretch"):
        rebuild(tmp_path, database, verify=False)
    listed["1SC6_B"] = listed["1SC6_B"]._replace(length=134)
    listed |= {"9ABC_A": Listed("val", 30, 1), "9ABD_A": Listed("train", 30, 1)}
    with pytest.raises(InvalidSet, match="2 listed chains are lacking, 9ABC_A first"):
        rebuild(tmp_path, database, verify=False)
    with database.open("rb") as file:
        chains = list(read_structure_db(file))
    with pytest.raises(InvalidSet, match="1SC6_B is not the listed stretch"):
        default_corpus.select_listed([*chains, chains[0]], listed)
    assert not list(tmp_path.glob("*.parquet*"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("./usr/share/promod3/loop_data/frag_db.dat", tarfile.REGTYPE),
        ("../" + MEMBER, tarfile.REGTYPE),
        ("/" + MEMBER, tarfile.REGTYPE),
        ("./" + MEMBER, tarfile.SYMTYPE),
        ("./" + MEMBER, tarfile.LNKTYPE),
        ("./" + MEMBER, tarfile.DIRTYPE),
    ],
)
def test_only_the_regular_file_of_that_name_is_read(
    name: str, kind: bytes, package: Package, listed: dict[str, Listed], tmp_path: Path
) -> None:
    path = package(_tar(name, b"" if kind != tarfile.REGTYPE else b"content", kind))
    with pytest.raises(InvalidSet, match=f"_all.deb: a package without {MEMBER}"):
        rebuild(tmp_path / "sets", path, verify=False)


def test_nothing_but_the_sets_is_left_on_disk(
    package: Package, listed: dict[str, Listed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = package()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    rebuild(tmp_path / "sets", path, verify=False)
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {path.name, "sets/train.parquet", "sets/val.parquet"}


@pytest.mark.parametrize("mode", ["", "gz", "bz2", "xz"])
def test_a_damaged_archive_is_refused_wherever_it_is_cut(
    mode: str, package: Package, database: Path, listed: dict[str, Listed], tmp_path: Path
) -> None:
    tar = _tar("./" + MEMBER, database.read_bytes(), mode=mode)
    # Up to where DSSP ends: what follows it is not read, and may be packed apart.
    for share in (0, 0.001, 0.01, 0.1, 0.2):
        with pytest.raises(InvalidSet, match=r"_all\.deb"):
            rebuild(tmp_path / "sets", package(tar[: int(share * len(tar))], mode and "." + mode), verify=False)
    if mode:
        broken = bytearray(tar)
        broken[100:200] = bytes(100)
        with pytest.raises(InvalidSet, match=r"_all\.deb"):
            rebuild(tmp_path / "sets", package(bytes(broken), "." + mode), verify=False)
    assert rebuild(tmp_path / "sets", package(tar, mode and "." + mode), verify=False)[1].sha256 == VAL


def test_an_archive_that_was_packed_when_it_was_cut_is_refused(
    package: Package, database: Path, listed: dict[str, Listed], tmp_path: Path
) -> None:
    whole = _tar("./" + MEMBER, database.read_bytes(), mode="")
    for length in (1, 700, 1500, 2000, 5000):
        path = package(lzma.compress(whole[:length]))
        path.write_bytes(path.read_bytes() + bytes(100_000))
        with pytest.raises(InvalidSet, match=r"_all\.deb"):
            rebuild(tmp_path / "sets", path, verify=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"!<arch>\n", "without data.tar"),
        (_ar({"debian-binary": b"2.0\n"}), "without data.tar"),
        (_ar({"data.tar.zst": b"x"}), "packed with zstd; unpack it with dpkg-deb"),
        (_ar({"debian-binary": b"2.0\n"})[:40], "not a proper ar archive"),
        (_ar({"debian-binary": b"2.0\n"}).replace(b"`\n", b"xx"), "not a proper ar archive"),
        (_ar({"debian-binary": b"2.0\n"}).replace(b"4         `", b"-60       `"), "not a proper ar archive"),
        (b"", "ends within its header"),
        (b"nonsense, and more of it", "it begins with"),
    ],
)
def test_what_is_no_package_is_refused(content: bytes, message: str, listed: dict[str, Listed], tmp_path: Path) -> None:
    path = tmp_path / "bad.deb"
    path.write_bytes(content)
    with pytest.raises(InvalidSet, match=message) as caught:
        rebuild(tmp_path / "sets", path, verify=False)
    assert str(path) in str(caught.value)


def _apt(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of this name into the path, instead of the one that would load 371 MB."""
    folder.mkdir()
    program = folder / "apt-get"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_without_a_package_apt_downloads_it_and_it_is_gone_after(
    package: Package, listed: dict[str, Listed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _apt(tmp_path / "bin", f'echo "$@" > {tmp_path}/asked; cp {package()} .', monkeypatch)
    steps: list[str] = []
    _, val = rebuild(tmp_path / "sets", verify=False, log=steps.append)
    assert val.sha256 == VAL
    assert (tmp_path / "asked").read_text() == "download -qq promod3-data=3.2.1+ds-6\n"
    assert steps[0] == "downloading promod3-data 3.2.1+ds-6, 371 MB"
    assert not list(tmp_path.glob("foldmint-*"))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'W: not this' >&2; echo 'E: Unable to locate package' >&2; exit 100", "E: Unable to locate package"),
        ("touch part.deb; echo 'E: Failed to fetch' >&2; exit 100", "E: Failed to fetch"),
        ("exit 0", "it left no file"),
    ],
)
def test_a_download_that_fails_says_why(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _apt(tmp_path / "bin", script, monkeypatch)
    with pytest.raises(InvalidSet, match=rf"apt-get cannot download promod3-data 3.2.1\+ds-6: {reason}"):
        rebuild(tmp_path / "sets")


def _run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main.app, ["corpus", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_command_writes_both_sets_and_tells_their_digests(
    package: Package, listed: dict[str, Listed], tmp_path: Path, chains: list[Record]
) -> None:
    path, out = package(), tmp_path / "sets"
    status, text, err = _run("--package", path, "--out", out, "--no-verify")
    assert (status, err) == (0, f"reading {path.name}\n")
    assert text.splitlines() == [
        f"{out}/train.parquet: 2 chains, 76 residues, SHA-256 {TRAIN}",
        f"{out}/val.parquet: 2 chains, 177 residues, SHA-256 {VAL}",
    ]
    (known,) = (record for record in chains if record.id == "3B0F_B")
    (record,) = (record for record in read_parquet(out / "val.parquet") if record.id == "3B0F_B")
    np.testing.assert_array_equal(record.coordinates, known.coordinates)
    np.testing.assert_array_equal(record.residue_index, known.residue_index)
    assert (record.sequence, record.dssp) == (known.sequence, known.dssp)


def test_faults_of_the_command_are_one_message_and_exit_code_1(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = _run("--package", tmp_path / "absent.deb", "--out", tmp_path / "sets")
    assert (status, err.splitlines()[-1].startswith("error: "), "No such file" in err) == (1, True, True)
    status, _, err = _run("--package", package(), "--out", tmp_path / "sets")
    assert (status, "its SHA-256 is" in err, "Traceback" in err) == (1, True, False)
    monkeypatch.setenv("PATH", str(tmp_path))
    status, _, err = _run("--out", tmp_path / "sets")
    assert (status, err) == (
        1,
        "error: there is no apt-get here: give promod3-data 3.2.1+ds-6, of Debian, as a file\n",
    )
