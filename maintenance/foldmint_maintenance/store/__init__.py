"""Changes of a model store."""
