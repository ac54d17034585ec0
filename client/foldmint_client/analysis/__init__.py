"""Comparison of token sequences, and usage of codes."""
