"""Model stores: folders or object stores that hold models and versions of their codebooks."""
