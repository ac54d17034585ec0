"""The encoder optimized for CPUs: the mathematics of `foldmint_tokenizer.encoder`, in few passes over memory.

Every array is (slots of neighborhoods, features), row by row. Products with weights are those of torch's BLAS, few and
large; what lies between them is compiled (`kernels`) and computed a neighborhood, or a row, at a time, in registers and
a core's first cache. In float32, layers are compiled as a whole with their products, so that threads need the
interpreter's lock only between layers. The norms' scales are folded into the weights, and biases are added where an
array is read anyway. No array is allocated twice. Training uses `Encoder.forward`; tests compare this module with it.
"""

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from foldmint_tokenizer.encoder import Block, Encoder
from foldmint_tokenizer.kernels import encoder as kernels
from foldmint_tokenizer.kernels import layers
from foldmint_tokenizer.kernels.products import sgemm_address
from foldmint_tokenizer.kernels.vectors import LANES
from foldmint_tokenizer.neighborhoods import NEIGHBORS, OFFSETS, Neighborhoods, padded

# Measured on Zen 4 cores with 1 MiB of cache each: rows a block, for small and for large encoders; slots a feed-forward
# product.
_ROWS, _ROWS_IF_WIDE, _WIDE = 256, 96, 512
_FEED_FORWARD_SLOTS = 512

_Floats = NDArray[np.float32]


class Workspace:
    """One thread's scratch memory, kept between calls."""

    def __init__(self) -> None:
        self._arrays: dict[str, Tensor] = {}

    def array(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """An array with arbitrary contents. Each name has one dtype."""
        size = torch.Size(shape).numel()
        array = self._arrays.get(name)
        if array is None or array.numel() < size:
            array = self._arrays[name] = torch.empty(size, dtype=dtype)
        return array[:size].view(shape)


class _Weights(NamedTuple):
    """A block's weights, transposed for products from the right.

    heads is padded to a multiple of 16, with weights of zero. keys: (width, 9 * heads), to the keys of rotation, the
    values, and the keys of distance, component by component, the last scaled by the head's distance_scale (heads,).
    queries: (width, 6 * heads), to the queries of rotation and distance, both scaled. out: (3 * heads, width). up:
    (width, 2 * hidden). down: (hidden, width). Biases likewise. epsilons: of the norms before attention and
    feed-forward.
    """

    keys: Tensor
    key_bias: _Floats
    queries: Tensor
    query_bias: _Floats
    distance_scale: _Floats
    out: Tensor
    out_bias: _Floats
    up: Tensor
    up_bias: _Floats
    down: Tensor
    down_bias: _Floats
    epsilons: tuple[float, float]


class _Projected(NamedTuple):
    """Projections (any, features) without bias, and the row of each slot."""

    values: Tensor
    rows: NDArray[np.int64]
    bias: _Floats


class FastEncoder:
    """A copy of an encoder's current weights. Threads may share it, each with its own workspace.

    half: round weights and inputs of the blocks' products, and the products, to bfloat16; the rest is float32.
    by_torch: compute products by `torch.mm` and nothing else, for comparisons. block_rows: the number of rows a call
    that is fastest. row_step: of numbers of rows that are not a multiple of it, the last rows take longer.

    In float32, wide encoders use packed weights, others compiled layers, each where torch offers what they need.
    """

    def __init__(self, encoder: Encoder, *, half: bool = False, by_torch: bool = False) -> None:
        config = self.config = encoder.config
        wide = config.width > _WIDE
        self.block_rows = _ROWS_IF_WIDE if wide else _ROWS
        self.row_step = _PACKED_ROWS
        self._packed = wide and _HAS_PACKED and not (half or by_torch)
        self._sgemm = None if self._packed or half or by_torch else sgemm_address()
        with torch.no_grad():
            self._blocks = [_weights(block) for block in encoder.transformer]
            # For each offset, the residual stream and the first block's projections.
            self._table = encoder.relative_positional_embedding.embedding.weight.detach().cpu().float().clone()
            first = self._blocks[0]
            seen = F.layer_norm(self._table, (config.width,), eps=first.epsilons[0])
            self._table_keys, self._table_queries = seen @ first.keys, seen @ first.queries
            if half or self._packed:
                change = torch.Tensor.bfloat16 if half else _packed
                self._blocks = [_with_products(block, change) for block in self._blocks]
            self._out = encoder.pre_vq_proj.weight.detach().cpu().float().t().contiguous()
            self._out_bias = encoder.pre_vq_proj.bias.detach().cpu().float().clone()

    def __call__(self, rows: Neighborhoods, work: Workspace) -> Tensor:
        """Vectors before quantization, z (rows, out). Raises ValueError for an offset without an embedding."""
        if rows.offset.size and (rows.offset.min() < 0 or rows.offset.max() >= OFFSETS):
            raise ValueError(f"an offset is not between 0 and {OFFSETS - 1}")
        count = len(rows.offset)
        if self._packed:
            rows = padded(rows, count + -count % _PACKED_ROWS)
        with torch.inference_mode():
            x = self._by_products(rows, work) if self._sgemm is None else self._by_layers(rows, work, self._sgemm)
            x = x[:count]
            return torch.addmm(self._out_bias, x + torch.from_numpy(self._blocks[-1].down_bias), self._out)

    def _by_layers(self, rows: Neighborhoods, work: Workspace, sgemm: int) -> Tensor:
        """The residual stream of the queries (rows, width), without the last bias."""
        n, width = len(rows.offset), self.config.width
        slots = NEIGHBORS * n
        every = np.arange(slots)
        scratch = work.array("scratch", kernels.SCRATCH).numpy()
        x = np.empty((0, width), np.float32)
        keys, queries = self._table_keys.view(-1).numpy(), self._table_queries.view(-1).numpy()
        key_rows = rows.offset.reshape(slots)
        for depth, block in enumerate(self._blocks):
            step = NEIGHBORS if depth == len(self._blocks) - 1 else 1  # the last block: the query's slot only
            asked = slots // step
            own = work.array("x of queries" if step > 1 else "x", asked, width).numpy()
            if depth == 0:
                query_rows = np.ascontiguousarray(rows.offset[:, : NEIGHBORS // step]).reshape(-1)
                np.take(self._table.numpy(), query_rows, 0, own)
            else:
                keys = work.array("keys", slots * block.keys.shape[1]).numpy()
                queries = work.array("queries", asked * block.queries.shape[1]).numpy()
                layers.project(
                    sgemm,
                    x,
                    self._blocks[depth - 1].down_bias,
                    block.epsilons[0],
                    work.array("normed", slots, width).numpy(),
                    block.keys.numpy(),
                    keys,
                    block.queries.numpy(),
                    queries,
                    step,
                    own,
                )
                key_rows, query_rows = every, every[:asked]
            x = own
            layers.attend_and_feed(
                sgemm,
                x,
                keys,
                key_rows,
                block.key_bias,
                queries,
                query_rows,
                block.query_bias,
                block.distance_scale,
                rows.rotation.reshape(-1),
                rows.origin.reshape(-1),
                rows.exists,
                work.array("seen", asked * len(block.out)).numpy(),
                scratch,
                block.out.numpy(),
                block.out_bias,
                block.epsilons[1],
                work.array("normed", asked, width).numpy(),
                block.up.numpy(),
                block.up_bias,
                block.down.numpy(),
                work.array("up", min(asked, _FEED_FORWARD_SLOTS) * 2 * self.config.hidden).numpy(),
            )
        return torch.from_numpy(x)

    def _by_products(self, rows: Neighborhoods, work: Workspace) -> Tensor:
        """As `_by_layers`, product by product: for other weights, and where torch's BLAS cannot be called otherwise."""
        n, width = len(rows.offset), self.config.width
        slots = NEIGHBORS * n
        offset = rows.offset.reshape(slots)
        every = np.arange(slots)
        x = torch.empty(0)
        for depth, block in enumerate(self._blocks):
            asked = 1 if depth == len(self._blocks) - 1 else NEIGHBORS  # the last block: the query's slot only
            if depth == 0:
                where = np.ascontiguousarray(rows.offset[:, :asked]).reshape(-1)
                x = work.array("x", n * asked, width)
                torch.index_select(self._table, 0, torch.from_numpy(where), out=x)
                keys = _Projected(self._table_keys, offset, block.key_bias)
                queries = _Projected(self._table_queries, where, block.query_bias)
            else:
                before = self._blocks[depth - 1].down_bias
                normed = self._normed(x, before, block.epsilons[0], work)
                key_values = _multiply(normed, block.keys, "keys", work)
                if asked == 1:
                    x, normed = work.array("x of queries", n, width).copy_(x[::NEIGHBORS]), normed[::NEIGHBORS]
                query_values = _multiply(normed, block.queries, "queries", work)
                keys = _Projected(key_values, every, block.key_bias)
                queries = _Projected(query_values, every[: n * asked], block.query_bias)
            _add_product(x, self._attended(keys, queries, rows, asked, block.distance_scale, work), block.out, work)
            self._feed_forward(x, block, work)
        return x

    def _attended(
        self,
        keys: _Projected,
        queries: _Projected,
        rows: Neighborhoods,
        asked: int,
        scale: _Floats,
        work: Workspace,
    ) -> Tensor:
        """Attention output before the output projection, (rows * asked, 3 * heads)."""
        seen = work.array("seen", len(rows.offset) * asked, 3 * len(scale))
        kernels.attend(
            keys.values.view(-1).numpy(),
            keys.rows,
            keys.bias,
            queries.values.view(-1).numpy(),
            queries.rows,
            queries.bias,
            scale,
            rows.rotation.reshape(-1),
            rows.origin.reshape(-1),
            rows.exists,
            asked,
            seen.view(-1).numpy(),
            work.array("scratch", kernels.SCRATCH).numpy(),
        )
        return seen

    def _normed(self, x: Tensor, bias: _Floats, epsilon: float, work: Workspace) -> Tensor:
        """Add a bias to x (any, width) in place; returns it normalized."""
        normed = work.array("normed", *x.shape)
        kernels.add_and_norm(x.numpy(), bias, epsilon, normed.numpy())
        return normed

    def _feed_forward(self, x: Tensor, block: _Weights, work: Workspace) -> None:
        """Add the bias of attention, and SwiGLU's output without its bias, to x (any, width)."""
        normed = self._normed(x, block.out_bias, block.epsilons[1], work)
        parts = (torch.split(whole, _FEED_FORWARD_SLOTS) for whole in (x, normed))
        for some, given in zip(*parts, strict=True):
            up = _multiply(given, block.up, "up", work)
            kernels.gate(up.view(-1).numpy(), block.up_bias)
            _add_product(some, up[:, : self.config.hidden], block.down, work)


def _multiply(left: Tensor, weight: Tensor, name: str, work: Workspace) -> Tensor:
    """left @ weight, float32, in the workspace's array of that name unless the weight is packed."""
    if weight.is_mkldnn:
        return _packed_product(left, weight)
    product = work.array(name, len(left), weight.shape[1])
    if weight.dtype == torch.float32:
        return torch.mm(left, weight, out=product)
    return product.copy_(_half_product(left, weight, work))


def _add_product(x: Tensor, left: Tensor, weight: Tensor, work: Workspace) -> None:
    """Add left @ weight to x."""
    if weight.is_mkldnn:
        x.add_(_packed_product(left, weight))
    elif weight.dtype == torch.float32:
        x.addmm_(left, weight)
    else:
        x.add_(_half_product(left, weight, work))


def _half_product(left: Tensor, weight: Tensor, work: Workspace) -> Tensor:
    """left @ weight, both and the product in bfloat16."""
    given = work.array("given", *left.shape, dtype=weight.dtype).copy_(left)
    return torch.mm(given, weight, out=work.array("product", len(left), weight.shape[1], dtype=weight.dtype))


# oneDNN's products of packed weights, as torch.compile calls them, are faster than `torch.mm` for wide encoders. It
# keeps code for each number of rows, half a megabyte a product: rows are padded to a few numbers.
_HAS_PACKED: bool = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
_PACKED_ROWS = 4


def _packed(weight: Tensor) -> Tensor:
    """A weight (inner, columns) in oneDNN's own layout, in place of its plain one."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous(), _FEED_FORWARD_SLOTS)  # noqa: SLF001
    return packed


def _packed_product(left: Tensor, packed: Tensor) -> Tensor:
    """left @ weight, by its packed layout."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")  # noqa: SLF001
    return product


def _with_products(block: _Weights, change: Callable[[Tensor], Tensor]) -> _Weights:
    """The block's weights, of which those of products are changed, but not biases."""
    return block._replace(
        keys=change(block.keys),
        queries=change(block.queries),
        out=change(block.out),
        up=change(block.up),
        down=change(block.down),
    )


def _weights(block: Block) -> _Weights:
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
    return _Weights(
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


def _flat(vector: Tensor) -> _Floats:
    """As a contiguous float32 array of its own."""
    copied: _Floats = vector.float().flatten().contiguous().clone().numpy()
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
