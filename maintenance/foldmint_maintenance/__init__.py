"""Corpora, training, evaluation and repair of Foldmint's codebooks."""
