"""Codebook updates by exponential moving averages, and re-initialization of dead codes: pure functions.

After van den Oord et al. 2017 (arXiv 1711.00937, appendix A.1). Counts and sums of several processes are
all-reduced by the caller, so that every process computes the same codebook.
"""

import torch
from torch import Tensor

from foldmint_tokenizer.codebook import Codebook

# Weight of a code's current vector in its own mean. Far below any threshold for dead codes, it keeps the vector of a
# code without hits in place, where m / N would become 0 / 0.
SMOOTHING = 1e-8


def batch_statistics(z: Tensor, codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Hits n (size,) and sums s (size, out) of a batch: z (rows, out), its codes (rows,)."""
    hits = torch.bincount(codes, minlength=size).to(z.dtype)
    sums = z.new_zeros(size, z.shape[1]).index_add_(0, codes, z)
    return hits, sums


def ema_update(codebook: Codebook, hits: Tensor, sums: Tensor, decay: float) -> Codebook:
    """The codebook after a step.

    N <- decay N + (1 - decay) n, m <- decay m + (1 - decay) s, e <- m / N, smoothed towards the current e.
    hits: (codes,), n; sums: (codes, out), s; both over all processes.
    """
    count = decay * codebook.N + (1 - decay) * hits
    total = decay * codebook.z_avg + (1 - decay) * sums
    vectors = (total + SMOOTHING * codebook.embeddings) / (count + SMOOTHING)[:, None]
    return Codebook(vectors, count, total)


def dead_codes(codebook: Codebook, threshold: float) -> Tensor:
    """Mask (codes,) of codes whose N, the average hits per step, is below the threshold."""
    return codebook.N.lt(threshold)


def reset_codes(codebook: Codebook, dead: Tensor, vectors: Tensor, count: float) -> Codebook:
    """The codebook with its dead codes at new vectors; live codes stay bit-identical.

    dead: (codes,) bool; vectors: (codes, out), read where dead; count: their initial N. Vector, N and
    sum are set together: a vector set alone would be undone by the next update.
    """
    mask = dead[:, None]
    return Codebook(
        torch.where(mask, vectors, codebook.embeddings),
        torch.where(dead, torch.full_like(codebook.N, count), codebook.N),
        torch.where(mask, vectors * count, codebook.z_avg),
    )
