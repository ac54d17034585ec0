"""Training of encoder, codebook and decoder."""
