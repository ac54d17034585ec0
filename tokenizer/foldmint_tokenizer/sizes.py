"""Sizes of encoders and decoders. Without torch, so that they are checked before it is imported."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of an encoder and its codebook.

    width: of the residual stream. heads: of geometric attention. layers: number of blocks. out: dimensions of a code's
    vector. codes: number of codes.
    """

    width: int
    heads: int
    layers: int
    out: int
    codes: int = 4096

    def __post_init__(self) -> None:
        for name in ("width", "heads", "layers", "out", "codes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"ModelConfig.{name} must be a positive integer, not {value!r}")

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layer: four times the width, rounded up to a multiple of 256."""
        return -(-4 * self.width // 256) * 256


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder.

    width: of the residual stream. heads: of attention. layers: number of blocks. chained: whether a token's rigid
    motion is relative to the previous token, so that the head predicts how the chain continues; otherwise it is
    relative to the origin, as in ESM3, where placing one residue requires the whole fold.
    """

    width: int
    heads: int
    layers: int
    chained: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "heads", "layers"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"DecoderConfig.{name} must be a positive integer, not {value!r}")
        if self.width % (2 * self.heads):
            raise ValueError(f"DecoderConfig.width, {self.width}, must be a multiple of twice the heads, {self.heads}")
        if not isinstance(self.chained, bool):
            raise ValueError(f"DecoderConfig.chained must be true or false, not {self.chained!r}")  # noqa: TRY004

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layer: 8/3 of the width, rounded up to a multiple of 256."""
        return -(-8 * self.width // (3 * 256)) * 256
