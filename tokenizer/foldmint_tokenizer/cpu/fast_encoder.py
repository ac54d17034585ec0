"""The encoder optimized for CPUs: the mathematics of `foldmint_tokenizer.encoder`, in few passes over memory.

Every array is (slots of neighborhoods, features), row by row. Products with weights are few and large (`Products`);
what lies between them is compiled (`kernels`) and computed a neighborhood, or a row, at a time, in registers and a
core's first cache. Layers of small encoders are compiled as a whole with their products, so that threads need the
interpreter's lock only between layers. The norms' scales are folded into the weights, and biases are added where an
array is read anyway. No array is allocated twice. Training uses `Encoder.forward`; tests compare this module with it.
"""

from math import prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from foldmint_tokenizer.cpu.weights import (
    WIDE,
    BlockWeights,
    Floats,
    Products,
    block_weights,
    fastest_products,
    prepared,
    prepared_output,
)
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.kernels import encoder as kernels
from foldmint_tokenizer.kernels import layers, tiles
from foldmint_tokenizer.kernels.products import sgemm_address
from foldmint_tokenizer.neighborhoods import NEIGHBORS, OFFSETS, Neighborhoods, padded

# Measured on Zen 4 cores with 1 MiB of cache each: rows a block, for small and for large encoders; slots a feed-forward
# product.
_ROWS, _ROWS_IF_WIDE = 256, 96
_FEED_FORWARD_SLOTS = 512
# oneDNN keeps code for each number of rows, half a megabyte a product: rows are padded to a few numbers.
_PACKED_ROWS = 4


class Workspace:
    """One thread's scratch memory, kept between calls."""

    def __init__(self) -> None:
        self._arrays: dict[str, Tensor] = {}
        self._floats: dict[str, Floats] = {}

    def floats(self, name: str, *shape: int) -> Floats:
        """An array with arbitrary contents, for functions that take no tensors."""
        size = prod(shape)
        array = self._floats.get(name)
        if array is None or array.size < size:
            array = self._floats[name] = np.empty(size, np.float32)
        return array[:size].reshape(shape)

    def array(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor with arbitrary contents. Each name has one dtype."""
        size = torch.Size(shape).numel()
        array = self._arrays.get(name)
        if array is None or array.numel() < size:
            array = self._arrays[name] = torch.empty(size, dtype=dtype, device="cpu")
        return array[:size].view(shape)


class _Projected(NamedTuple):
    """Projections (any, features) without bias, and the row of each slot."""

    values: Tensor
    rows: NDArray[np.int64]
    bias: Floats


class _Weights(NamedTuple):
    """A block's weights, for functions that take no tensors."""

    keys: Floats
    queries: Floats
    out: Floats
    up: Floats
    down: Floats


class FastEncoder:
    """A copy of an encoder's current weights. Threads may share it, each with its own workspace.

    products: how products with weights are computed; by default, what is fastest in float32. block_rows: the number of
    rows a call that is fastest. row_step: of numbers of rows that are not a multiple of it, the last rows take longer.
    """

    def __init__(self, encoder: Encoder, products: Products | None = None) -> None:
        config = self.config = encoder.config
        self.products = products or fastest_products(config)
        self.block_rows = _ROWS_IF_WIDE if config.width > WIDE else _ROWS
        self.row_step = _PACKED_ROWS
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            plain = [block_weights(block) for block in encoder.transformer]
            # For each offset, the residual stream and the first block's projections.
            self._table = encoder.relative_positional_embedding.embedding.weight.detach().cpu().float().clone()
            seen = F.layer_norm(self._table, (config.width,), eps=plain[0].epsilons[0])
            self._table_keys, self._table_queries = seen @ plain[0].keys, seen @ plain[0].queries
            self._blocks = [prepared(block, self.products) for block in plain]
            out, bias = encoder.pre_vq_proj.weight, encoder.pre_vq_proj.bias
            self._out, self._out_bias = prepared_output(out, bias, self.products)
        self._whole = self.products in (Products.BLAS, Products.TILES)
        if self._whole:
            # Views: made for each block of rows, they would take as long as a residue does.
            self._weights = [
                _Weights(*(weight.numpy() for weight in (one.keys, one.queries, one.out, one.up, one.down)))
                for one in self._blocks
            ]
            self._tables: list[Floats] = [
                self._table.numpy(),
                self._table_keys.reshape(-1).numpy(),
                self._table_queries.reshape(-1).numpy(),
            ]

    def __call__(self, rows: Neighborhoods, work: Workspace) -> Tensor:
        """Vectors before quantization, z (rows, out). Raises ValueError for an offset without an embedding."""
        if rows.offset.size and (rows.offset.min() < 0 or rows.offset.max() >= OFFSETS):
            raise ValueError(f"an offset is not between 0 and {OFFSETS - 1}")
        count = len(rows.offset)
        if count == 0:
            return torch.from_numpy(np.empty((0, self.config.out), np.float32))
        if self.products is Products.PACKED:
            rows = padded(rows, count + -count % _PACKED_ROWS)
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            x = self._by_layers(rows, work) if self._whole else self._by_products(rows, work)
            return self._finished(x[:count])

    def _finished(self, x: Tensor) -> Tensor:
        """z (rows, out) of the residual stream (rows, width)."""
        bias = self._blocks[-1].down_bias
        if self.products is not Products.TILES:
            return torch.addmm(self._out_bias, x + torch.from_numpy(bias), self._out)
        z = np.empty((len(x), len(self._out_bias)), np.float32)
        layers.finish(x.numpy(), bias, self._out.numpy(), self._out_bias.numpy(), z)
        return torch.from_numpy(z[:, : self.config.out])

    def _by_layers(self, rows: Neighborhoods, work: Workspace) -> Tensor:
        """The residual stream of the queries (rows, width), without the last bias."""
        n, width = len(rows.offset), self.config.width
        sgemm = 0 if self.products is Products.TILES else sgemm_address() or 0
        slots = NEIGHBORS * n
        every = np.arange(slots)
        scratch = work.floats("scratch", kernels.SCRATCH)
        x = np.empty((0, width), np.float32)
        table, keys, queries = self._tables
        key_rows = rows.offset.reshape(slots)
        rotation, origin = rows.rotation.reshape(-1), rows.origin.reshape(-1)
        for depth, (block, weights) in enumerate(zip(self._blocks, self._weights, strict=True)):
            step = NEIGHBORS if depth == len(self._blocks) - 1 else 1  # the last block: the query's slot only
            asked = slots // step
            own = work.floats("x of queries" if step > 1 else "x", asked, width)
            if depth == 0:
                query_rows = np.ascontiguousarray(rows.offset[:, : NEIGHBORS // step]).reshape(-1)
                # All offsets are valid; numpy would check them in a copy of the result.
                np.take(table, query_rows, 0, own, mode="clip")
            else:
                keys = work.floats("keys", slots * len(block.key_bias))
                queries = work.floats("queries", asked * len(block.query_bias))
                layers.project(
                    sgemm,
                    x,
                    self._blocks[depth - 1].down_bias,
                    block.epsilons[0],
                    work.floats("normed", slots, width),
                    weights.keys,
                    keys,
                    weights.queries,
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
                rotation,
                origin,
                rows.exists,
                work.floats("seen", asked * 3 * len(block.distance_scale)),
                scratch,
                weights.out,
                block.out_bias,
                block.epsilons[1],
                work.floats("normed", asked, width),
                weights.up,
                block.up_bias,
                weights.down,
                work.floats("up", self._up_size(asked)),
            )
        return torch.from_numpy(x)

    def _up_size(self, slots: int) -> int:
        """Numbers of scratch memory that a layer's feed-forward needs, as in `attend_and_feed`."""
        if self.products is Products.TILES:
            return tiles.BLOCK * (self.config.hidden + tiles.COLUMNS)
        return min(slots, _FEED_FORWARD_SLOTS) * 2 * self.config.hidden

    def _by_products(self, rows: Neighborhoods, work: Workspace) -> Tensor:
        """As `_by_layers`, product by product: for other weights, and where torch's BLAS cannot be called otherwise."""
        n, width = len(rows.offset), self.config.width
        slots = NEIGHBORS * n
        offset = rows.offset.reshape(slots)
        every = np.arange(slots)
        x = work.array("x", 0)
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
        scale: Floats,
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

    def _normed(self, x: Tensor, bias: Floats, epsilon: float, work: Workspace) -> Tensor:
        """Add a bias to x (any, width) in place; returns it normalized."""
        normed = work.array("normed", *x.shape)
        kernels.add_and_norm(x.numpy(), bias, epsilon, normed.numpy())
        return normed

    def _feed_forward(self, x: Tensor, block: BlockWeights, work: Workspace) -> None:
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


def _packed_product(left: Tensor, packed: Tensor) -> Tensor:
    """left @ weight, by its packed layout."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")  # noqa: SLF001
    return product
