"""The structure decoder of ESM3's architecture: from tokens to backbone and confidence.

Written from the ESM3 paper (appendix A.1.6 and A.1.7). Parameters have the names and shapes of the published weights. A
bidirectional transformer with rotary positions reads token ids; a head predicts a rigid motion for each token (a
translation, and a rotation by Gram-Schmidt of two vectors); two more heads predict the confidence.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foldmint_tokenizer import vocabulary
from foldmint_tokenizer.encoder import SwiGLU
from foldmint_tokenizer.sizes import DecoderConfig

DISTANCE_BINS = 64
DIRECTION_BINS = 16
DIRECTIONS = 6
PAE_BINS = 64
LARGEST_ERROR = 31.0
"""Å; larger predicted aligned errors share the last bin."""
PLDDT_BINS = 50

# N, CA and C in a residue's own frame, Å: the mean geometry that ESM3's decoder uses.
_RESIDUE = ((0.5256, 1.3612, 0.0), (0.0, 0.0, 0.0), (-1.5251, 0.0, 0.0))
_TRANSLATION_UNIT = 10.0  # Å
_ROTARY_BASE = 10_000.0
_PAIR_WIDTH = 128


ESM3_DECODER = DecoderConfig(width=1280, heads=20, layers=30)


class Rigids(NamedTuple):
    """Rigid motions: x -> rotation @ x + origin. rotation: (..., 3, 3), columns are axes; origin: (..., 3), Å."""

    rotation: Tensor
    origin: Tensor


class SelfAttention(nn.Module):
    """Attention over the whole sequence, with normalized queries and keys and rotary positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.layernorm_qkv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3 * width, bias=False))
        self.q_ln = nn.LayerNorm(width, bias=False)
        self.k_ln = nn.LayerNorm(width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """x: (n, length, width); rotary: from `rotary_angles`; mask: (n, 1, 1, length), true for attended tokens."""
        query, key, value = self.layernorm_qkv(x).chunk(3, -1)
        query, key = _rotated(self._split(self.q_ln(query)), rotary), _rotated(self._split(self.k_ln(key)), rotary)
        seen = F.scaled_dot_product_attention(query, key, self._split(value), mask)
        result: Tensor = self.out_proj(seen.transpose(1, 2).flatten(-2))
        return result

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)  # (n, heads, length, width / heads)


def rotary_angles(length: int, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, size / 2) of rotary positions 0, 1, 2, … (Su et al. 2021, arXiv 2104.09864)."""
    rate = 1 / _ROTARY_BASE ** (torch.arange(0, size, 2, dtype=torch.float32, device=like.device) / size)
    angle = torch.outer(torch.arange(length, dtype=torch.float32, device=like.device), rate)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def _rotated(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate pairs of one dimension of the first half and one of the second; x: (n, heads, length, size)."""
    cosine, sine = rotary
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


class DecoderBlock(nn.Module):
    """Attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attn = SelfAttention(config.width, config.heads)
        self.ffn = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, 2 * config.hidden, bias=False),
            SwiGLU(),
            nn.Linear(config.hidden, config.width, bias=False),
        )

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """(n, length, width) -> (n, length, width)."""
        x = x + self.attn(x, rotary, mask)
        fed: Tensor = self.ffn(x)
        return x + fed


class TokenStack(nn.Module):
    """The blocks of a decoder, under the name that the published weights use."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """(n, length, width) -> (n, length, width)."""
        for block in self:
            x = block(x, rotary, mask)
        result: Tensor = self.norm(x)
        return result

    def __iter__(self) -> Iterator[DecoderBlock]:
        return iter(cast(Iterable[DecoderBlock], self.blocks))


class RigidHead(nn.Module):
    """A rigid motion for each token: three numbers for the translation, six for the rotation (Zhou et al. 2019).

    The last 14 outputs are torsion angles, which the published decoder does not use; they are kept so that its weights
    fit.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn1 = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, 9 + 14)

    def forward(self, x: Tensor) -> Rigids:
        """(..., width) -> motions (...), in float32."""
        numbers = self.proj(self.norm(F.gelu(self.ffn1(x)))).float()
        translation, along, beside, _ = numbers.split([3, 3, 3, 14], -1)
        # The published head predicts the axis from CA to C; frames use that from C to CA.
        first = _unit(-along / (along.norm(dim=-1, keepdim=True) + 1e-5))
        beside = beside / (beside.norm(dim=-1, keepdim=True) + 1e-5)
        second = _unit(beside - first * (first * beside).sum(-1, keepdim=True))
        third = torch.linalg.cross(first, second)
        return Rigids(torch.stack([first, second, third], -1), translation * _TRANSLATION_UNIT)


def _unit(x: Tensor) -> Tensor:
    return x / torch.sqrt(x.square().sum(-1, keepdim=True) + 1e-10)


class PairHead(nn.Module):
    """Logits for each pair of tokens: distance (64 bins), six directions (16 each), aligned error (64)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.downproject = nn.Linear(width, _PAIR_WIDTH, bias=False)
        self.linear1 = nn.Linear(_PAIR_WIDTH, _PAIR_WIDTH, bias=False)
        self.norm = nn.LayerNorm(_PAIR_WIDTH)
        self.linear2 = nn.Linear(_PAIR_WIDTH, DISTANCE_BINS + DIRECTIONS * DIRECTION_BINS + PAE_BINS, bias=False)

    def forward(self, x: Tensor, rows: Tensor | slice, outputs: slice) -> Tensor:
        """Logits (n, rows, length, outputs) of some rows of all pairs; x: (n, length, width)."""
        return self.logits(self.downproject(x), rows, outputs)

    def logits(self, own: Tensor, rows: Tensor | slice, outputs: slice) -> Tensor:
        """Logits of some rows of all pairs, from the output of `downproject`: (n, length, 128)."""
        column, row = own.chunk(2, -1)
        row = row[:, rows]
        # linear1 reads column * row, then column - row. Both are linear in the column: one matrix a row suffices.
        product, difference = self.linear1.weight.chunk(2, -1)
        mixing = row[..., None] * product.T + difference.T  # (n, rows, 64, 128)
        pair = column[:, None] @ mixing - F.linear(row, difference)[:, :, None]
        return F.linear(self.norm(F.gelu(pair)), self.linear2.weight[outputs])


DISTANCE_LOGITS = slice(0, DISTANCE_BINS)
DIRECTION_LOGITS = slice(DISTANCE_BINS, DISTANCE_BINS + DIRECTIONS * DIRECTION_BINS)
BINNED_LOGITS = slice(0, DISTANCE_BINS + DIRECTIONS * DIRECTION_BINS)
PAE_LOGITS = slice(DISTANCE_BINS + DIRECTIONS * DIRECTION_BINS, None)


class ConfidenceHead(nn.Module):
    """Logits of 50 bins of lDDT between 0 and 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, PLDDT_BINS)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., 50)."""
        result: Tensor = self.output(self.norm(F.gelu(self.dense(x))))
        return result


class Decoder(nn.Module):
    """From token ids, BOS to EOS, to rigid motions and confidence."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(vocabulary.SIZE, config.width)
        self.decoder_stack = TokenStack(config)
        self.affine_output_projection = RigidHead(config.width)
        self.pairwise_classification_head = PairHead(config.width)
        self.plddt_head = ConfidenceHead(config.width)

    def states(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The last hidden states (n, length, width) of embedded tokens x (n, length, width).

        mask: (n, length) bool, false for padding, which is masked out of attention; None if there is no padding.
        """
        return token_states(self.decoder_stack, self.config, x, mask)

    def rigids(self, states: Tensor) -> Rigids:
        """Frames (n, length) of the tokens in one coordinate system; states: (n, length, width)."""
        moves: Rigids = self.affine_output_projection(states)
        return composed(moves) if self.config.chained else moves

    def confidence(self, states: Tensor) -> Tensor:
        """Predicted lDDT (n, length), 0 to 1: the mean over the bins. states: (n, length, width)."""
        return expected_lddt(self.plddt_head(states))


def token_states(stack: TokenStack, config: DecoderConfig, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The output of a stack for embedded tokens x (n, length, width), as in `Decoder.states`."""
    rotary = rotary_angles(x.shape[1], config.width // config.heads, x)
    result: Tensor = stack(x, rotary, None if mask is None else mask[:, None, None])
    return result


def expected_lddt(logits: Tensor) -> Tensor:
    """The mean lDDT, 0 to 1, of a distribution over 50 bins; logits: (..., 50)."""
    bins = (torch.arange(PLDDT_BINS, dtype=torch.float32, device=logits.device) + 0.5) / PLDDT_BINS
    return logits.float().softmax(-1) @ bins


def composed(moves: Rigids) -> Rigids:
    """Cumulative products of the motions (n, length) along the length: a scan in log2(length) steps."""
    rotation, origin = moves
    reach = 1
    while reach < origin.shape[1]:
        before, place = rotation[:, :-reach], origin[:, :-reach]
        origin = torch.cat([origin[:, :reach], place + (before @ origin[:, reach:, :, None]).squeeze(-1)], 1)
        rotation = torch.cat([rotation[:, :reach], before @ rotation[:, reach:]], 1)
        reach *= 2
    return Rigids(rotation, origin)


def backbone_atoms(rigids: Rigids) -> Tensor:
    """N, CA and C (..., 3, 3): atom, axis; Å; of a residue with mean geometry in each frame."""
    local = torch.tensor(_RESIDUE, dtype=rigids.origin.dtype, device=rigids.origin.device)
    return torch.einsum("...ij,aj->...ai", rigids.rotation, local) + rigids.origin[..., None, :]


class AlignedError(NamedTuple):
    """pae: (length, length), Å, expected error of the column's CA in the row's frame. ptm: expected TM-score."""

    pae: Tensor
    ptm: Tensor


def aligned_error(head: PairHead, states: Tensor, residues: Tensor, rows: int = 16) -> AlignedError:
    """Predicted aligned error and TM-score of one sequence, over its residues only.

    states: (length, width). residues: (residues,) int64, their positions in the sequence. rows: number of rows of pairs
    computed at once, which bounds the memory. pTM after Jumper et al. 2021 (supplement 1.9.7).
    """
    step = LARGEST_ERROR / (PAE_BINS - 2)
    centers = (torch.arange(PAE_BINS, device=states.device, dtype=torch.float32) + 0.5) * step
    d0 = 1.24 * (max(len(residues), 19) - 15) ** (1 / 3) - 1.8
    near = 1 / (1 + (centers / d0).square())
    own = head.downproject(states[residues][None])
    # Allocated up front: small results between large temporaries would fragment the memory.
    pae = torch.empty(len(residues), len(residues), dtype=torch.float32, device=states.device)
    score = torch.empty(len(residues), dtype=torch.float32, device=states.device)
    for start in range(0, len(residues), rows):
        part = slice(start, start + rows)
        share = head.logits(own, part, PAE_LOGITS)[0].float().softmax(-1)
        pae[part] = share @ centers
        score[part] = (share @ near).mean(-1)
    return AlignedError(pae, score.max())
