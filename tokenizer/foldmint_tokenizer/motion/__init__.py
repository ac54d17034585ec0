"""Codes that state motions: assignment to chains, composition, and the decoder."""
