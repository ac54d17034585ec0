"""The training and validation sets of the default model, rebuilt from a package of Debian."""

import hashlib
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, NamedTuple

from foldmint_maintenance.datasets.loading import Digest
from foldmint_maintenance.datasets.promod3 import Chain, read_structure_db
from foldmint_maintenance.datasets.records import write_parquet
from foldmint_maintenance.errors import InvalidSet

PACKAGE = "promod3-data"
PACKAGE_VERSION = "3.2.1+ds-6"
MEMBER = "usr/share/promod3/loop_data/structure_db.dat"
PACKAGE_SHA256 = "7d1011a2686ea92e263f3daf9940f787351ff94f19eb47646c624754d80b8f56"
MEMBER_SHA256 = "0f1c6e35a3f248fddd0c2c0da2c0d1145b502d4663fe8adb7239f27adad3301a"

SPLITS = ("train", "val")
LIST = Path(__file__).with_name("splits") / "promod3-3.2.1.tsv.xz"

_AR = b"!<arch>\n"
_AR_HEADER = 60

Log = Callable[[str], None]
"""Called with a line of text before each slow step."""


class Listed(NamedTuple):
    """Which split a chain belongs to, and what the database must say of it."""

    split: str
    length: int
    first_residue: int


@dataclass(frozen=True)
class Rebuilt:
    """A set that has been written; sha256: of its records, whatever kind of file they lie in."""

    path: Path
    chains: int
    residues: int
    sha256: str


def listed_chains() -> dict[str, Listed]:
    """The chains of both sets by id, in the database's order, and no others."""
    with lzma.open(LIST, "rt", encoding="ascii") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    return {name: Listed(split, int(length), int(first)) for name, split, length, first in rows}


def rebuild(out: Path, package: Path | None = None, verify: bool = True, log: Log | None = None) -> list[Rebuilt]:
    """Write train.parquet and val.parquet into the folder `out`.

    package: Debian's package, or the structure_db.dat in it; without, apt-get downloads it to a temporary folder.
    verify: the SHA-256 of either must be that of the package that the sets were first made from.

    Raises InvalidSet if the package is another one, damaged, lacks listed chains, or cannot be downloaded, and
    FileNotFoundError without apt-get.
    """
    log = log or (lambda _: None)
    listed = listed_chains()
    with _downloaded(log) if package is None else nullcontext(package) as path:
        if verify:
            log(f"verifying {path.name}")
            _verify(path)
        log(f"reading {path.name}")
        with open_database(path) as file:
            chains = select_listed(read_structure_db(file, listed), listed)
    out.mkdir(parents=True, exist_ok=True)
    return [_written(chains, listed, split, out / f"{split}.parquet") for split in SPLITS]


def select_listed(chains: Iterable[Chain], listed: Mapping[str, Listed]) -> list[Chain]:
    """The listed chains, once each. Raises `InvalidSet` if one is missing, repeated or differs from the list."""
    chosen: dict[str, Chain] = {}
    for chain in chains:
        if (len(chain.sequence), chain.first_residue) != listed[chain.id][1:] or chain.id in chosen:
            raise InvalidSet(f"{chain.id} is not the listed stretch; only {PACKAGE} {PACKAGE_VERSION} fits")
        chosen[chain.id] = chain
    lacking = [name for name in listed if name not in chosen]
    if lacking:
        raise InvalidSet(
            f"{len(lacking)} listed chains are lacking, {lacking[0]} first; only {PACKAGE} {PACKAGE_VERSION} fits"
        )
    return list(chosen.values())


def _written(chains: Iterable[Chain], listed: Mapping[str, Listed], split: str, path: Path) -> Rebuilt:
    digest = Digest()
    records = (chain.record() for chain in chains if listed[chain.id].split == split)
    counts = write_parquet(digest.through(records), path)
    return Rebuilt(path, *counts, digest.sha256())


def _verify(path: Path) -> None:
    with path.open("rb") as file:
        wanted = PACKAGE_SHA256 if file.read(len(_AR)) == _AR else MEMBER_SHA256
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise InvalidSet(f"{path} is not that of {PACKAGE} {PACKAGE_VERSION}: its SHA-256 is {found}, not {wanted}")


@contextmanager
def open_database(path: Path) -> Iterator[IO[bytes]]:
    """The database as a stream that goes forward, from a package or a file of its own; nothing is unpacked to disk.

    Raises InvalidSet, named after the path, if the package is damaged or holds no database, and passes on under that
    name what reading the database raises.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_AR)) != _AR:
                file.seek(0)
                yield file
                return
            _seek_data(file)
            # A member is read as a stream, so its name leads nowhere.
            with tarfile.open(fileobj=file, mode="r|*") as tar:
                for member in tar:
                    if member.isreg() and member.name.removeprefix("./") == MEMBER:
                        content = tar.extractfile(member)
                        assert content is not None  # noqa: S101 (it is a regular file)
                        yield content
                        return
        raise InvalidSet(f"a package without {MEMBER}")
    except InvalidSet as error:
        raise InvalidSet(f"{path}: {error}") from error
    except (tarfile.TarError, EOFError) as error:
        raise InvalidSet(f"{path} is damaged: {error}") from error


def _seek_data(file: IO[bytes]) -> None:
    """Go from the first header of an `ar` archive to the content of its member data.tar.*."""
    while header := file.read(_AR_HEADER):
        name, size = header[:16].rstrip(b" /"), header[48:58].rstrip(b" ")
        if len(header) != _AR_HEADER or not header.endswith(b"`\n") or not size.isdigit():
            raise InvalidSet("a damaged package: it is not a proper ar archive")
        if name == b"data.tar.zst":
            raise InvalidSet(f"a package packed with zstd; unpack it with dpkg-deb, and give its {MEMBER}")
        if name.startswith(b"data.tar"):
            return
        file.seek(int(size) + int(size) % 2, 1)
    raise InvalidSet("a package without data.tar")


@contextmanager
def _downloaded(log: Log) -> Iterator[Path]:
    apt = shutil.which("apt-get")
    if apt is None:
        raise FileNotFoundError(f"there is no apt-get here: give {PACKAGE} {PACKAGE_VERSION}, of Debian, as a file")
    with TemporaryDirectory(prefix="foldmint-") as folder:
        log(f"downloading {PACKAGE} {PACKAGE_VERSION}, 371 MB")
        command = [apt, "download", "-qq", f"{PACKAGE}={PACKAGE_VERSION}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
        packages = sorted(Path(folder).glob("*.deb"))
        if done.returncode or not packages:
            reason = " ".join(line for line in done.stderr.splitlines() if line.startswith("E:"))
            raise InvalidSet(f"apt-get cannot download {PACKAGE} {PACKAGE_VERSION}: {reason or 'it left no file'}")
        yield packages[0]
