"""Files of a store, wherever fsspec reaches: a folder, S3, GCS, …; what is written is whole before its name appears."""

import os
import uuid
from pathlib import Path
from posixpath import basename

import fsspec
from fsspec.implementations.local import LocalFileSystem

# What fsspec's file systems raise beside OSError: botocore's and gcsfs's own errors, and missing packages.
_NOT_REACHED = (OSError, ValueError, ImportError)
_S3 = ("s3://", "s3a://")


class Files:
    """The files below one place. All names are relative to it, parts apart by `/`.

    Raises OSError where a file cannot be read or written, whatever the file system itself raises.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        """location: a path, or a URL as fsspec takes them, such as `s3://bucket/store`.

        Raises OSError if it cannot be reached, or the package that reaches it is not installed.
        """
        self.location = os.fspath(location)
        try:
            self._system, self._root = fsspec.core.url_to_fs(self.location)
        except _NOT_REACHED as error:
            hint = (
                ": pip install 'foldmint[s3]'"
                if isinstance(error, ImportError) and self.location.startswith(_S3)
                else ""
            )
            raise OSError(f"{self.location} cannot be reached: {error}{hint}") from error
        # Others write to the same place: what was listed once is no longer true.
        self._system.use_listings_cache = False
        self._local = isinstance(self._system, LocalFileSystem)

    def __str__(self) -> str:
        return self.location

    def path(self, name: str) -> str:
        """A file's place, for messages."""
        return f"{self.location.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError if there is none."""
        try:
            self._forget()
            content: bytes = self._system.cat_file(self._at(name))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise OSError(f"{self.path(name)}: {error}") from error
        return content

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file, or folder with something in it."""
        try:
            self._forget()
            return bool(self._system.exists(self._at(name)))
        except Exception as error:
            raise OSError(f"{self.path(name)}: {error}") from error

    def names(self, folder: str = "") -> list[str]:
        """What lies directly in a folder, sorted; nothing if there is no such folder."""
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
        """When a file was last written, seconds since 1970; None where there is no file, or none can tell."""
        try:
            self._forget()
            return float(self._system.modified(self._at(name)).timestamp())
        except (FileNotFoundError, IsADirectoryError, NotImplementedError):
            return None
        except Exception as error:
            raise OSError(f"{self.path(name)}: {error}") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in the place of one that may be there: readers see the old one or the new one, whole."""
        if self._local:
            part = self._part(name, content)
            part.replace(self._at(name))
            return
        try:
            self._system.pipe_file(self._at(name), content)
        except Exception as error:
            raise OSError(f"{self.path(name)}: {error}") from error

    def create(self, name: str, content: bytes) -> None:
        """Write a file where there is none; of several that try at once, one succeeds. Raises FileExistsError."""
        if self._local:
            part = self._part(name, content)
            try:
                # Unlike a rename, a link is refused where there is something.
                Path(self._at(name)).hardlink_to(part)
            finally:
                part.unlink()
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
        """Remove a file, or a folder with all that is in it; nothing happens where there is none."""
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

    def _part(self, name: str, content: bytes) -> Path:
        """The content in a file beside the one that it is for, on the disk."""
        target = Path(self._at(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return part

    def _forget(self) -> None:
        if not self._local:
            self._system.invalidate_cache()
