"""Parsing of structures, in processes that may die of it."""
