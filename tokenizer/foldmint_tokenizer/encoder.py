"""The structure encoder of ESM3's architecture: from neighborhoods to vectors before quantization.

Written from the mathematics in the ESM3 paper (appendix A.1.6 and A.1.7). Parameters have the names and shapes of the
published weights. The unit of work is a residue's neighborhood, not a protein, which allows three exact savings: the
first block's projections are a table of 66 rows, the last block computes the query's row only, and rows of many
proteins share a batch without padding.
"""

from collections.abc import Callable, Iterable, Iterator
from math import sqrt
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foldmint_tokenizer.neighborhoods import OFFSETS
from foldmint_tokenizer.sizes import ModelConfig

ESM3 = ModelConfig(width=1024, heads=128, layers=2, out=128, codes=4096)


class GeometricAttention(nn.Module):
    """Attention among the frames of a neighborhood; logits are a rotation term minus a distance term."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.s_norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, 15 * heads)
        self.out_proj = nn.Linear(3 * heads, width)
        self.distance_scale_per_head = nn.Parameter(torch.zeros(heads))
        self.rotation_scale_per_head = nn.Parameter(torch.zeros(heads))

    def project(self, x: Tensor) -> Tensor:
        """Five vectors a head: x (..., width) -> (..., 15 * heads), each in its residue's own frame."""
        projected: Tensor = self.proj(self.s_norm(x))
        return projected

    def forward(self, projected: Tensor, rotation: Tensor, origin: Tensor, exists: Tensor, queries: int) -> Tensor:
        """Attention from the first `queries` residues of each neighborhood to all of them.

        projected: (n, k, 15 * heads). rotation: (n, k, 3, 3). origin: (n, k, 3), Å. exists: (n, k) bool. Returns (n,
        queries, width).
        """
        n, k, _ = projected.shape
        h = self.heads
        # All five are rotated at once, component-wise, since products of 3x3 matrices are too small for a GEMM.
        vectors = _rotate(rotation, projected.view(n, k, 5 * h, 3))  # tuple of 3 x (n, k, 5 * heads)
        query_rot, key_rot, value, query_dist, key_dist = (
            tuple(v[..., i * h : (i + 1) * h] for v in vectors) for i in range(5)
        )
        rotated = [_every_pair(torch.mul, query_rot[i][:, :queries], key_rot[i]) for i in range(3)]
        dot = rotated[0] + rotated[1] + rotated[2]
        apart = [
            _every_pair(
                torch.sub, (query_dist[i] + origin[..., i, None])[:, :queries], key_dist[i] + origin[..., i, None]
            )
            for i in range(3)
        ]
        square = apart[0].square() + apart[1].square() + apart[2].square()
        # sqrt has no gradient at zero, the distance of a residue to itself; norm defines the gradient as zero there.
        distance = torch.sqrt(square.clamp_min(1e-24) if torch.is_grad_enabled() else square)
        logits = dot * (F.softplus(self.rotation_scale_per_head) / sqrt(3))
        logits = logits - distance * (F.softplus(self.distance_scale_per_head) / sqrt(3))
        logits = logits.masked_fill(~exists[:, None, :, None], float("-inf"))
        weight = torch.softmax(logits, dim=2)  # (n, queries, k, heads)
        mean = [(weight * v[:, None]).sum(2) for v in value]  # 3 x (n, queries, heads)
        back = _rotate_back(rotation[:, :queries], mean)
        result: Tensor = self.out_proj(back)
        return result


def _every_pair(combine: Callable[[Tensor, Tensor], Tensor], query: Tensor, key: Tensor) -> Tensor:
    """(n, q, heads) and (n, k, heads) -> (n, q, k, heads)."""
    return combine(query[:, :, None], key[:, None])


def _rotate(rotation: Tensor, local: Tensor) -> list[Tensor]:
    """rotation (n, k, 3, 3), local (n, k, v, 3) -> three components (n, k, v)."""
    x, y, z = local.unbind(-1)
    return [
        rotation[..., i, 0, None] * x + rotation[..., i, 1, None] * y + rotation[..., i, 2, None] * z for i in range(3)
    ]


def _rotate_back(rotation: Tensor, seen: list[Tensor]) -> Tensor:
    """The inverse of `_rotate`: three components (n, q, heads) -> (n, q, 3 * heads)."""
    x, y, z = seen
    parts = [
        rotation[..., 0, i, None] * x + rotation[..., 1, i, None] * y + rotation[..., 2, i, None] * z for i in range(3)
    ]
    return torch.stack(parts, -1).flatten(-2)


class SwiGLU(nn.Module):
    """(..., 2 * hidden) -> (..., hidden)."""

    def forward(self, x: Tensor) -> Tensor:
        """SiLU of the first half, multiplied by the second half."""
        gate, value = x.chunk(2, -1)
        return F.silu(gate) * value


class Block(nn.Module):
    """Geometric attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.geom_attn = GeometricAttention(config.width, config.heads)
        self.ffn = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, 2 * config.hidden),
            SwiGLU(),
            nn.Linear(config.hidden, config.width),
        )

    def forward(self, x: Tensor, projected: Tensor, rotation: Tensor, origin: Tensor, exists: Tensor) -> Tensor:
        """x: (n, queries, width), the residues to compute; projected: (n, k, 15 * heads), of all residues."""
        x = x + self.geom_attn(projected, rotation, origin, exists, x.shape[1])
        fed: Tensor = self.ffn(x)
        return x + fed


class _Transformer(nn.Module):
    """The blocks, under the name that the published weights use."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def __iter__(self) -> Iterator[Block]:
        return iter(cast(Iterable[Block], self.blocks))


class _RelativePositionEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(OFFSETS, width)
        nn.init.normal_(self.embedding.weight, std=0.02)


class Encoder(nn.Module):
    """From neighborhoods to vectors. The codebook is separate, since it has versions of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = _Transformer(config)
        self.pre_vq_proj = nn.Linear(config.width, config.out)
        self.relative_positional_embedding = _RelativePositionEmbedding(config.width)

    def forward(self, rotation: Tensor, origin: Tensor, offset: Tensor, exists: Tensor) -> Tensor:
        """Vectors before quantization, z (n, out), of n neighborhoods (shapes as in `Neighborhoods`)."""
        table = self.relative_positional_embedding.embedding.weight  # (66, width)
        first, *others = self.transformer
        # Block 1 depends on offsets only: its norm and projection have 66 distinct rows, computed once.
        projected = F.embedding(offset, first.geom_attn.project(table))
        # The last block computes the query's row only.
        queries = offset.shape[1] if others else 1
        x = first(F.embedding(offset[:, :queries], table), projected, rotation, origin, exists)
        for depth, block in enumerate(others, start=1):
            queries = 1 if depth == len(others) else offset.shape[1]
            x = block(x[:, :queries], block.geom_attn.project(x), rotation, origin, exists)
        z: Tensor = self.pre_vq_proj(x[:, 0])
        return z

    def without_frame(self) -> Tensor:
        """The vector (out,) of every residue without a frame: the projection of zero."""
        return self.pre_vq_proj.bias
