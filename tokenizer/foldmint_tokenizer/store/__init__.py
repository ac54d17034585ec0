"""Model stores: folders or object stores that hold models and versions of their codebooks."""

from foldmint_tokenizer.store.model_store import DEFAULT, EMBEDDED, create_store, load_model

__all__ = ["DEFAULT", "EMBEDDED", "create_store", "load_model"]
