"""Model stores: folders or object stores with a model and the versions of its codebook."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foldmint_tokenizer.store.embedded import DEFAULT, EMBEDDED
    from foldmint_tokenizer.store.model_store import create_store, load_model

__all__ = ["DEFAULT", "EMBEDDED", "create_store", "load_model"]


# Loaded when asked for: what only reads and writes files needs no torch.
def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "embedded" if name in ("DEFAULT", "EMBEDDED") else "model_store"
    return getattr(import_module(f"{__name__}.{module}"), name)
