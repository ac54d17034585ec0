"""An encoder's weights, as the products of a CPU need them."""

from collections.abc import Callable
from enum import StrEnum
from math import sqrt
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from foldmint_tokenizer.encoder import Block
from foldmint_tokenizer.kernels import tiles
from foldmint_tokenizer.kernels.products import sgemm_address
from foldmint_tokenizer.kernels.vectors import LANES
from foldmint_tokenizer.sizes import ModelConfig

Floats = NDArray[np.float32]

WIDE = 512
# Products of packed weights by oneDNN, as torch.compile calls them.
_HAS_PACKED: bool = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
_PACKED_SLOTS = 512  # what oneDNN is told of a product's rows


class Products(StrEnum):
    """How products with weights are computed.

    TORCH: by `torch.mm`, one by one. BLAS: by the same library, within compiled layers. TILES: by `kernels.tiles`,
    within compiled layers. PACKED: by oneDNN, with packed weights, one by one. BF16: by `torch.mm`, of weights and
    inputs rounded to bfloat16, as the products are; the others are in float32.
    """

    TORCH = "torch"
    BLAS = "blas"
    TILES = "tiles"
    PACKED = "packed"
    BF16 = "bf16"


def fastest_products(config: ModelConfig) -> Products:
    """What is fastest in float32 for an encoder of these sizes, of what this CPU and torch offer.

    Measured on Zen 4 cores.
    """
    if config.width > WIDE and _HAS_PACKED:
        return Products.PACKED
    if config.width <= WIDE and config.width % LANES == 0 and tiles.suits_this_cpu():
        return Products.TILES
    return Products.BLAS if sgemm_address() is not None else Products.TORCH


class BlockWeights(NamedTuple):
    """A block's weights, transposed for products from the right.

    heads is padded to a multiple of 16, with weights of zero. keys: (width, 9 * heads), to the keys of rotation, the
    values, and the keys of distance, component by component, the last scaled by the head's distance_scale (heads,).
    queries: (width, 6 * heads), to the queries of rotation and distance, both scaled. out: (3 * heads, width). up:
    (width, 2 * hidden). down: (hidden, width). Biases likewise. epsilons: of the norms before attention and
    feed-forward. `prepared` changes the weights, not the biases.
    """

    keys: Tensor
    key_bias: Floats
    queries: Tensor
    query_bias: Floats
    distance_scale: Floats
    out: Tensor
    out_bias: Floats
    up: Tensor
    up_bias: Floats
    down: Tensor
    down_bias: Floats
    epsilons: tuple[float, float]


def prepared(weights: BlockWeights, products: Products) -> BlockWeights:
    """The weights as such products need them."""
    if products is Products.BF16:
        return _with_products(weights, Tensor.bfloat16)
    if products is Products.PACKED:
        return _with_products(weights, _packed)
    if products is Products.TILES:
        return _with_products(weights._replace(up=_gate_beside_value(weights.up)), _panels)
    return weights


def prepared_output(weight: Tensor, bias: Tensor, products: Products) -> tuple[Tensor, Tensor]:
    """The projection's weight (out, width), transposed and as such products need it, and its bias (out,).

    For tiles, out is padded to a multiple of 16.
    """
    own, own_bias = weight.detach().cpu().float().t(), bias.detach().cpu().float().clone()
    if products is not Products.TILES:
        return own.contiguous(), own_bias
    missing = -len(own_bias) % LANES
    return _panels(F.pad(own, (0, missing))), F.pad(own_bias, (0, missing))


def _with_products(weights: BlockWeights, change: Callable[[Tensor], Tensor]) -> BlockWeights:
    return weights._replace(
        keys=change(weights.keys),
        queries=change(weights.queries),
        out=change(weights.out),
        up=change(weights.up),
        down=change(weights.down),
    )


def _packed(weight: Tensor) -> Tensor:
    """A weight (inner, columns) in oneDNN's own layout."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous(), _PACKED_SLOTS)  # noqa: SLF001
    return packed


def _panels(weight: Tensor) -> Tensor:
    return torch.from_numpy(tiles.panels(weight.numpy()))


def _gate_beside_value(up: Tensor) -> Tensor:
    """Columns of the gate and of the value in turns, 16 at a time, so that each panel has both."""
    return up.view(len(up), 2, -1, LANES).transpose(1, 2).flatten(1)


def block_weights(block: Block) -> BlockWeights:
    """A block's weights in float32."""
    attention = block.geom_attn
    norm, up, _, down = cast(tuple[nn.LayerNorm, nn.Linear, nn.Module, nn.Linear], tuple(block.ffn))
    heads = attention.heads
    missing = -heads % LANES
    # The published order is vector, head, component. The vectors are the rotation's query and key, the value, and the
    # distance's query and key.
    weight, bias = _folded(attention.proj, attention.s_norm)
    by_rotation, by_distance = (
        F.softplus(scale.detach().cpu().double())[:, None] / sqrt(3)
        for scale in (attention.rotation_scale_per_head, attention.distance_scale_per_head)
    )
    whole = torch.cat([weight, bias], 1).view(5, heads, 3, -1).transpose(1, 2)  # (5, 3, heads, width + 1)
    keys = torch.stack([whole[1], whole[2], whole[4] * by_distance])
    queries = torch.stack([whole[0] * by_rotation, whole[3] * by_distance])
    keys, queries = (F.pad(part, (0, 0, 0, missing)).flatten(0, 2).float() for part in (keys, queries))
    out_weight, out_bias = _folded(attention.out_proj)
    out_weight = F.pad(out_weight.view(-1, heads, 3).transpose(1, 2), (0, missing)).flatten(1)
    up_weight, up_bias = _folded(up, norm)
    down_weight, down_bias = _folded(down)
    return BlockWeights(
        keys[:, :-1].t().contiguous(),
        _flat(keys[:, -1]),
        queries[:, :-1].t().contiguous(),
        _flat(queries[:, -1]),
        _flat(F.pad(by_distance[:, 0], (0, missing))),
        out_weight.float().t().contiguous(),
        _flat(out_bias),
        up_weight.float().t().contiguous(),
        _flat(up_bias),
        down_weight.float().t().contiguous(),
        _flat(down_bias),
        (attention.s_norm.eps, norm.eps),
    )


def _flat(vector: Tensor) -> Floats:
    """As a contiguous float32 array of its own."""
    copied: Floats = vector.float().flatten().contiguous().clone().numpy()
    return copied


def _folded(linear: nn.Linear, norm: nn.LayerNorm | None = None) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out, 1), in float64, with the preceding norm's scale and shift folded in."""
    weight = linear.weight.detach().cpu().double()
    bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().cpu().double()
    if norm is not None:
        if norm.bias is not None:
            bias = bias + weight @ norm.bias.detach().cpu().double()
        weight = weight * norm.weight.detach().cpu().double()
    return weight, bias[:, None]
