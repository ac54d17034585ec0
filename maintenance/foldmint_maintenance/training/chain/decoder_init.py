"""Initialization of a decoder: embeddings from the codes' vectors, and attention heads at fixed offsets.

From random weights, training takes long to learn that a token's neighbors matter and what shape a code has. Both are
known in advance: vectors of similar shapes are close, and with rotary positions a head can attend to a fixed offset.
"""

from typing import cast

import torch
from torch import Tensor, nn

from foldmint_tokenizer.decoder import Decoder, DecoderBlock, rotary_angles

# Offsets, in residues, that the heads of a block attend to, forward and back; larger in deeper blocks.
_OFFSETS = ((1, 2, 3, 4), (1, 2, 3, 5), (1, 3, 6, 9), (1, 4, 8, 12), (1, 2, 5, 10), (1, 3, 6, 12))
# Only rotary frequencies above it distinguish near neighbors.
_SLOWEST = 0.09
_SHARPNESS = 2.0
_CONSTANT = 8.0


def start(decoder: Decoder, embeddings: Tensor, mean_motion: tuple[Tensor, Tensor], generator: torch.Generator) -> None:
    """Set the initial weights.

    embeddings: (codes, out), the codebook's vectors. mean_motion: mean rotation (3, 3) and translation (3,), Å, from a
    residue's frame to the next one's, the initial output of a chained decoder's head.
    """
    width = decoder.config.width
    with torch.no_grad():
        centered = embeddings - embeddings.mean(0)
        scaled = centered / centered.std(0).mean()
        random = torch.randn(width, max(width, scaled.shape[1]), generator=generator)
        directions = torch.linalg.qr(random)[0]
        decoder.embed.weight.normal_(std=0.02, generator=generator)
        used = min(width, scaled.shape[1])
        decoder.embed.weight[: len(scaled)] += scaled[:, :used] @ directions[:, :used].T
        for depth, block in enumerate(decoder.decoder_stack):
            _attend_to_offsets(block, _OFFSETS[depth % len(_OFFSETS)], generator)
        head = decoder.affine_output_projection.proj
        head.weight.mul_(0.1)
        if decoder.config.chained:
            rotation, translation = mean_motion
            head.bias[:3] = translation / 10
            head.bias[3:6], head.bias[6:9] = -rotation[:, 0], rotation[:, 1]


def _attend_to_offsets(block: DecoderBlock, offsets: tuple[int, ...], generator: torch.Generator) -> None:
    """Make each head attend to one offset, by constant parts of its queries and keys; values are random."""
    attention = block.attn
    norm, project = cast(tuple[nn.LayerNorm, nn.Linear], tuple(attention.layernorm_qkv))
    width, size = project.in_features, project.in_features // attention.heads
    # The last dimension carries the constant instead of content.
    norm.weight[-1], norm.bias[-1] = 0, 1
    project.weight.normal_(std=0.7 / width**0.5, generator=generator)
    query, key, _ = project.weight.chunk(3)
    cosine, sine = rotary_angles(2, size, project.weight)
    fast = (torch.atan2(sine[1], cosine[1]) > _SLOWEST).float()
    strength = _CONSTANT * fast * (size / fast.sum()) ** 0.5
    for head in range(attention.heads):
        offset = offsets[head // 2 % len(offsets)] * (1 if head % 2 == 0 else -1)
        angle = torch.atan2(sine[1], cosine[1]) * offset
        rows = slice(head * size, (head + 1) * size)
        query[rows, -1] = torch.cat([strength * angle.cos(), strength * angle.sin()])
        key[rows, -1] = torch.cat([strength, torch.zeros_like(strength)])
    attention.q_ln.weight.fill_(_SHARPNESS)
    attention.k_ln.weight.fill_(_SHARPNESS)
    attention.out_proj.weight.normal_(std=0.1 / width**0.5, generator=generator)
    last = cast(nn.Linear, block.ffn[3])
    last.weight.normal_(std=0.1 / last.in_features**0.5, generator=generator)
