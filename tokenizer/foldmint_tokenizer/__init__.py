"""Protein backbones to structure tokens, in process."""
