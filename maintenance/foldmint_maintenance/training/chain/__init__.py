"""Training on whole chains: batches, losses, and the trainer of encoder, codebook and decoder."""
