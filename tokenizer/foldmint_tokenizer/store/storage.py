"""Reads and writes a store's files wherever fsspec reaches (a folder, S3, GCS, …); writes are atomic."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from posixpath import basename
from typing import IO

import fsspec
from fsspec.implementations.local import LocalFileSystem

# Besides OSError, fsspec's file systems raise errors of botocore and gcsfs, and ImportError for missing packages.
_UNREACHABLE_ERRORS = (OSError, ValueError, ImportError)
_S3 = ("s3://", "s3a://")
PART = ".part"
"""Suffix of temporary files in a local folder, which begin with a dot; those of a killed process remain."""


class Files:
    """The files below one location. Names are relative to it, with `/` between their parts.

    Raises OSError if a file cannot be read or written, whatever the file system itself raises.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        """location: a path, or a URL as fsspec takes them, such as `s3://bucket/store`.

        Raises OSError if it cannot be reached, or if the package for its protocol is not installed.
        """
        self.location = os.fspath(location)
        try:
            self._system, self._root = fsspec.core.url_to_fs(self.location)
        except _UNREACHABLE_ERRORS as error:
            needs_extra = isinstance(error, ImportError) and self.location.startswith(_S3)
            hint = ": pip install 'foldmint[s3]'" if needs_extra else ""
            raise OSError(f"{self.location} cannot be reached: {error}{hint}") from error
        # Other processes write to the same location: a cached listing may be out of date.
        self._system.use_listings_cache = False
        self._local = isinstance(self._system, LocalFileSystem)

    def __str__(self) -> str:
        return self.location

    @property
    def local(self) -> bool:
        """Whether they are in a folder of this machine's file systems."""
        return self._local

    def path(self, name: str) -> str:
        """A file's full path, for messages."""
        return f"{self.location.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError if it does not exist."""
        try:
            self._forget()
            content: bytes = self._system.cat_file(self._at(name))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise OSError(f"{self.path(name)}: {error}") from error
        return content

    def exists(self, name: str = "") -> bool:
        """Whether a file, or a folder that is not empty, exists."""
        try:
            self._forget()
            return bool(self._system.exists(self._at(name)))
        except Exception as error:
            raise OSError(f"{self.path(name)}: {error}") from error

    def names(self, folder: str = "") -> list[str]:
        """The names directly in a folder, sorted; empty if the folder does not exist."""
        try:
            self._forget()
            listed = self._system.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise OSError(f"{self.path(folder)}: {error}") from error
        found = {basename(str(path).rstrip("/")) for path in listed}
        return sorted(found - {"", basename(self._at(folder).rstrip("/"))})

    def modified(self, name: str) -> float | None:
        """When a file was last written, seconds since 1970; None if there is no such file, or if the file system does
        not know.
        """
        try:
            self._forget()
            return float(self._system.modified(self._at(name)).timestamp())
        except (FileNotFoundError, IsADirectoryError, NotImplementedError):
            return None
        except Exception as error:
            raise OSError(f"{self.path(name)}: {error}") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it atomically: readers see either the old content or the new one."""
        if self._local:
            with self.writing(name) as file:
                file.write(content)
            return
        try:
            self._system.pipe_file(self._at(name), content)
        except Exception as error:
            raise OSError(f"{self.path(name)}: {error}") from error

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A stream to write a file to, which appears under its name when the block ends without an error.

        In an object store it is uploaded then; until then it is in the folder for temporary files.
        """
        if self._local:
            with self._part_file(name) as (part, file):
                yield file
                file.flush()
                os.fsync(file.fileno())
                part.replace(self._at(name))
            return
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            try:
                self._system.put_file(file.name, self._at(name))
            except Exception as error:
                raise OSError(f"{self.path(name)}: {error}") from error

    def create(self, name: str, content: bytes) -> None:
        """Write a file that must not exist; of several concurrent calls, one succeeds. Raises FileExistsError."""
        if self._local:
            with self._part_file(name) as (part, file):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                # Unlike a rename, a link fails if the target exists.
                Path(self._at(name)).hardlink_to(part)
            return
        try:
            self._forget()
            if self._system.exists(self._at(name)):
                raise FileExistsError(f"{self.path(name)} exists")
            self._system.pipe_file(self._at(name), content, mode="create")
        except FileExistsError:
            raise
        except Exception as error:
            raise OSError(f"{self.path(name)}: {error}") from error

    def remove(self, name: str) -> None:
        """Remove a file, or a folder and its contents; does nothing if it does not exist."""
        try:
            self._forget()
            if self._system.exists(self._at(name)):
                self._system.rm(self._at(name), recursive=True)
        except FileNotFoundError:
            return
        except Exception as error:
            raise OSError(f"{self.path(name)}: {error}") from error

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    @contextmanager
    def _part_file(self, name: str) -> Iterator[tuple[Path, IO[bytes]]]:
        """A temporary file beside the target, removed at the end if it still has its name."""
        target = Path(self._at(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}{PART}")
        try:
            with part.open("xb") as file:
                yield part, file
        finally:
            part.unlink(missing_ok=True)

    def _forget(self) -> None:
        if not self._local:
            self._system.invalidate_cache()
