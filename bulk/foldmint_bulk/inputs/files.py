"""Opens and lists the files of inputs, wherever fsspec reaches."""

import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, Any, TypeVar

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from foldmint_bulk.errors import InvalidInput, UnreadableInput

T = TypeVar("T")
Claim = Callable[[str, Container[str]], T | None]
"""Returns a file's input kind, given its path and the names in its folder; None if it is not an input."""

_MAGIC = "*?["
_PASSWORD = re.compile(r"(?<=://)[^/\s?#]*@")
_QUERY = re.compile(r"(?<=://)([^\s?]*)\?[^\s'\")>]*")
_SECRETS = re.compile(r"https?://[^?]*\?|\w+://[^?]*\?[^?/]+=")
"""What a URL with a query begins with; elsewhere than on the web, ? stands for any letter."""


def redacted(text: str) -> str:
    """A text without the users, passwords and queries of its URLs."""
    return _QUERY.sub(r"\1", _PASSWORD.sub("", text))


def refuse_credentials(url: str) -> None:
    """Raise InvalidInput if a URL has a user, password or query: it would be stored with the job."""
    if _PASSWORD.search(url) or _SECRETS.search(url):
        raise InvalidInput(
            f"{redacted(url)}: a URL with a user, password or query is not accepted, since it would be written to the "
            "job's files; credentials come from the environment"
        )


def require_foldcomp() -> None:
    """Raise InvalidInput if Foldcomp's library is not installed."""
    if importlib.util.find_spec("foldcomp") is None:
        raise InvalidInput("Foldcomp's files need its library: pip install 'foldmint[foldcomp]'")


def open_input(path: str, *, cached: bool = True) -> IO[bytes]:
    """A file, to be read and seeked. cached: whether to read ahead, where it is remote. Raises UnreadableInput."""
    try:
        system, name = url_to_fs(path)
        stream: IO[bytes] = system.open(name, "rb", **({} if cached else {"cache_type": "none"}))
    except Exception as error:
        # File systems raise errors of their own libraries.
        raise UnreadableInput(f"{path}: {reason_of(error)}") from error
    return stream


def read_input(path: str) -> bytes:
    """A file's content. Raises UnreadableInput."""
    try:
        system, name = url_to_fs(path)
        content: bytes = system.cat_file(name)
    except Exception as error:
        raise UnreadableInput(f"{path}: {reason_of(error)}") from error
    return content


def reason_of(error: BaseException) -> str:
    """What an error says, without its number and path, and without credentials."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return redacted(reason)


def printable(name: str) -> str:
    """A name in characters that every output takes."""
    return name.encode("utf-8", "backslashreplace").decode()


def find_files(inputs: Sequence[str], claim: Claim[T], skipped: Counter[str]) -> Iterator[tuple[str, T | None]]:
    """The files that the inputs mean, with their kinds, in their order; within a folder or pattern, sorted.

    A folder means the files below it that `claim` accepts, hidden ones left out; the others are counted in `skipped`
    by suffix. A file named is taken whatever its name, if need be without a kind; what exists by its name is no
    pattern. Raises InvalidInput if an input does not exist, matches nothing, or is a folder without inputs.
    """
    for given in inputs:
        refuse_credentials(given)
        try:
            system, root = url_to_fs(given)
            paths = [root] if system.exists(root) else _matches(system, root)
            found = False
            for path in paths:
                below: Iterable[tuple[str, T | None]]
                if system.isdir(path):
                    below = _below(system, path, claim, skipped)
                else:
                    below = [(path, claim(path, _Beside(system, path)))]
                for name, kind in below:
                    found = True
                    yield given if name == root else _as_given(system, given, root, name), kind
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(f"{given}: {reason_of(error)}") from error
        if not found:
            what = "the folder contains no inputs" if paths else "no such file or folder"
            raise InvalidInput(f"{given}: {what}")


class _Beside(Container[str]):
    """The names in the folder of a file, looked up one by one."""

    def __init__(self, system: Any, path: str) -> None:  # noqa: ANN401 (fsspec has no types)
        self._system, self._folder = system, path.rpartition("/")[0]

    def __contains__(self, name: object) -> bool:
        return bool(self._system.exists(f"{self._folder}/{name}"))


def _matches(system: Any, pattern: str) -> list[str]:  # noqa: ANN401 (fsspec has no types)
    if not any(letter in pattern for letter in _MAGIC):
        return []
    return sorted(map(str, system.glob(pattern)))


def _below(
    system: Any,  # noqa: ANN401
    folder: str,
    claim: Claim[T],
    skipped: Counter[str],
) -> Iterator[tuple[str, T]]:
    """The inputs below a folder, sorted; hidden ones are left out."""
    entries = sorted(system.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
    named = [(str(entry["name"]).rstrip("/"), entry["type"]) for entry in entries]
    beside = frozenset(PurePosixPath(path).name for path, _ in named)
    for path, kind in named:
        name = PurePosixPath(path).name
        if name.startswith(".") or path == folder.rstrip("/"):
            continue
        if kind == "directory":
            if not (isinstance(system, LocalFileSystem) and system.islink(path)):
                yield from _below(system, path, claim, skipped)
        elif (claimed := claim(path, beside)) is not None:
            yield path, claimed
        else:
            skipped[PurePosixPath(name.removesuffix(".gz")).suffix.lower() or "no suffix"] += 1


def _as_given(system: Any, given: str, root: str, found: str) -> str:  # noqa: ANN401
    """A file's path as outputs name it: below a folder, the folder as it was given and the rest."""
    if found.startswith(root.rstrip("/") + "/"):
        return f"{given.rstrip('/')}/{found[len(root.rstrip('/')) + 1 :]}"
    if isinstance(system, LocalFileSystem):
        return found
    return str(system.unstrip_protocol(found))
