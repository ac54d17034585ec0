"""The models that the package includes, which are stores, and stores that begin with one of them."""

from pathlib import Path

from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.store import layout
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.storage import Files

_PACKAGE = Path(__file__).parent.parent

DEFAULT = _PACKAGE / "default"
"""The embedded default model."""

EMBEDDED = {"foldmint": DEFAULT, "geometry": _PACKAGE / "geometry"}
"""The models included in the package, by name. A name stands for its store unless a path of that name exists."""


def initialize(files: Files, model: str = "foldmint", *, wait: float = 60) -> bool:
    """Copy an embedded model to a store that is empty. Returns False, and changes nothing, if it is a store already.

    Of several processes, one copies the model, and the others wait for it, up to `wait` seconds. A copy that a killed
    process left unfinished is replaced. Raises `StoreLocked` if another process still holds the store's lock,
    `ModelError` if the location cannot be read or written, `KeyError` if no model has that name.
    """
    source = Files(EMBEDDED[model])
    try:
        # Without the lock, so that nothing needs to be written where nothing is to be done.
        if files.exists(layout.MODEL):
            return False
        with StoreLock(files, wait=wait) as lock:
            if files.exists(layout.MODEL):
                return False
            for name in _files_of(source):
                files.write(name, source.read(name))
            lock.check()
            # Last: a folder without it is not a store.
            files.create(layout.MODEL, source.read(layout.MODEL))
    except OSError as error:
        raise ModelError(f"{files} cannot be initialized: {error}") from error
    return True


def _files_of(source: Files) -> list[str]:
    """The files of a store with one version, without model.json, in the order in which they are written."""
    versions = [f"{layout.CODEBOOKS}/{version}" for version in source.names(layout.CODEBOOKS)]
    content = [f"{folder}/{name}" for folder in versions for name in source.names(folder)]
    weights = [name for name in (layout.ENCODER, layout.DECODER) if source.exists(name)]
    return [*weights, *content, layout.ACTIVE]
