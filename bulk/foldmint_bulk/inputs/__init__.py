"""Kinds of inputs: how each is divided into units, and read."""
