"""The decoder of models whose codes encode motions: corrects motions and predicts confidence from the codes' vectors.

A chain is composed of the motions that its tokens' codes encode, in whichever version of the codebook. For independent
tokens, a transformer over the vectors adds a small correction to each motion, inferred from its context. Anchored and
tracking tokens were chosen to be composed unchanged, and are not corrected.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foldmint_tokenizer.decoder import (
    ConfidenceHead,
    Decoder,
    PairHead,
    Rigids,
    TokenStack,
    expected_lddt,
    token_states,
)
from foldmint_tokenizer.motion.motions import MOTION
from foldmint_tokenizer.sizes import DecoderConfig
from foldmint_tokenizer.vocabulary import CODES, SIZE


@dataclass(frozen=True)
class MotionDecoderConfig:
    """Sizes of a motion decoder.

    width, heads, layers: of the transformer, as in `DecoderConfig`. out: dimensions of the codes' vectors. corrections:
    whether the motions of independent tokens are corrected.
    """

    width: int
    heads: int
    layers: int
    out: int
    corrections: bool = True

    def __post_init__(self) -> None:
        self.stack()
        if not isinstance(self.out, int) or isinstance(self.out, bool) or self.out < MOTION:
            raise ValueError(f"MotionDecoderConfig.out must be an integer of at least {MOTION}, not {self.out!r}")
        if not isinstance(self.corrections, bool):
            raise ValueError(f"MotionDecoderConfig.corrections must be true or false, not {self.corrections!r}")  # noqa: TRY004

    def stack(self) -> DecoderConfig:
        """The transformer's sizes."""
        return DecoderConfig(self.width, self.heads, self.layers, chained=True)


class MotionDecoder(nn.Module):
    """From vectors of codes, BOS to EOS, to corrections of their motions and confidence."""

    center: Tensor
    scale: Tensor

    def __init__(self, config: MotionDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("center", torch.zeros(config.out))
        self.register_buffer("scale", torch.ones(config.out))
        self.lift = nn.Linear(config.out, config.width)
        self.special = nn.Embedding(SIZE - CODES, config.width)
        self.assigned = nn.Parameter(torch.empty(config.width))
        nn.init.normal_(self.assigned)
        self.decoder_stack = TokenStack(config.stack())
        self.correction = nn.Linear(config.width, 6)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)
        self.pairwise_classification_head = PairHead(config.width)
        self.plddt_head = ConfidenceHead(config.width)

    def normalize_to(self, embeddings: Tensor) -> None:
        """Set the input normalization to the mean and standard deviation of a codebook's vectors (codes, out)."""
        self.center.copy_(embeddings.mean(0))
        self.scale.copy_(embeddings.std(0).clamp_min(1e-3))

    def embedding(self, embeddings: Tensor) -> Tensor:
        """The decoder's input for each token (vocabulary, width); embeddings: (codes, out), of a version of the
        codebook.

        Rows between the last code and the first special token are zero: they belong to no token.
        """
        codes = self.lift((embeddings - self.center) / self.scale)
        unused = codes.new_zeros(CODES - len(codes), codes.shape[1])
        return torch.cat([codes, unused, self.special.weight])

    def states(self, x: Tensor, mask: Tensor | None = None, *, assigned: bool = False) -> Tensor:
        """The last hidden states (n, length, width) of embedded tokens x (n, length, width), as in `Decoder.states`.

        assigned: whether the tokens are anchored or tracking ones.
        """
        return token_states(self.decoder_stack, self.config.stack(), x + self.assigned if assigned else x, mask)

    def corrected(self, motions: Rigids, states: Tensor) -> Rigids:
        """The motions (...) with the corrections predicted from states (..., width), each in the frame that the motion
        leads to.
        """
        turn, move = self.correction(states).float().split([3, 3], -1)
        # The quaternion (1, turn), normalized: a rotation of about twice `turn`.
        one = torch.ones_like(turn[..., :1])
        w, x, y, z = (torch.cat([one, turn], -1) / (1 + turn.square().sum(-1, keepdim=True)).sqrt()).unbind(-1)
        rows = [
            torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
            torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
            torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
        ]
        shift = (motions.rotation @ move[..., None]).squeeze(-1)
        return Rigids(motions.rotation @ torch.stack(rows, -2), motions.origin + shift)

    def confidence(self, states: Tensor) -> Tensor:
        """Predicted lDDT (n, length), 0 to 1; states (n, length, width)."""
        return expected_lddt(self.plddt_head(states))


AnyDecoder = Decoder | MotionDecoder
