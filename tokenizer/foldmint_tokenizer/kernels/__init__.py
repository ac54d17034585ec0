"""Functions compiled by numba: the loops of the geometry and of the encoder on a CPU."""
