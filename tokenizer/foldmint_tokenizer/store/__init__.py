"""Model stores: folders or object stores with a model and the versions of its codebook."""

from foldmint_tokenizer.store.model_store import DEFAULT, EMBEDDED, create_store, load_model

__all__ = ["DEFAULT", "EMBEDDED", "create_store", "load_model"]
