"""The encoder optimized for CPUs: the mathematics of `encoder`, with arrays laid out for caches.

Every array is (features, slots * rows): a column belongs to one slot of one row's neighborhood, slot by slot, so that
the queries (slot 0) are the first columns. As a result
- products with weights are few and large, and add to the residual stream in place; the norms' scales are folded into
  the weights, and biases are the weights' last column, which multiplies a row of ones;
- attention runs query by query over a few heads, on arrays that fit a core's cache; its inner loops run over columns,
  not over the few heads or components;
- no array is allocated twice.
Training uses `Encoder.forward`; tests compare this module with it.
"""

from math import sqrt
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foldmint_tokenizer.encoder import Block, Encoder
from foldmint_tokenizer.neighborhoods import NEIGHBORS, Neighborhoods

# Measured on Zen 3 cores with 512 KiB of cache each: rows a block, for small and for large encoders; columns a
# feed-forward product; elements of a pair array (slots * heads * rows, 256 KiB).
_ROWS, _ROWS_IF_WIDE, _WIDE = 256, 96, 512
_FEED_FORWARD_COLUMNS = 512
_PAIR_ELEMENTS = 2**16


class Workspace:
    """One thread's scratch memory, kept between calls."""

    def __init__(self) -> None:
        self._arrays: dict[str, Tensor] = {}

    def array(self, name: str, *shape: int) -> Tensor:
        """A float32 array with arbitrary contents."""
        size = torch.Size(shape).numel()
        array = self._arrays.get(name)
        if array is None or array.numel() < size:
            array = self._arrays[name] = torch.empty(size)
        return array[:size].view(shape)


class _Weights(NamedTuple):
    """A block's weights, each with the bias as its last column.

    keys: (9 * heads, width + 1), to the keys of rotation, the values, and the keys of distance, component by component,
    the last scaled by the head's distance_scale (heads, 1). queries: (6 * heads, width + 1), to the queries of rotation
    and distance, both scaled. out: (width, 3 * heads + 1). up: (2 * hidden, width + 1). down: (width, hidden + 1).
    epsilons: of the norms before attention and feed-forward.
    """

    keys: Tensor
    queries: Tensor
    distance_scale: Tensor
    out: Tensor
    up: Tensor
    down: Tensor
    epsilons: tuple[float, float]


class FastEncoder:
    """A copy of an encoder's current weights. Threads may share it, each with its own workspace.

    block_rows: the number of rows a call that is fastest.
    """

    def __init__(self, encoder: Encoder) -> None:
        config = self.config = encoder.config
        self.block_rows = _ROWS_IF_WIDE if config.width > _WIDE else _ROWS
        with torch.no_grad():
            self._blocks = [_weights(block) for block in encoder.transformer]
            table = encoder.relative_positional_embedding.embedding.weight.detach().cpu().float()
            first = self._blocks[0]
            seen = torch.cat(
                [F.layer_norm(table, (config.width,), eps=first.epsilons[0]), torch.ones(len(table), 1)], 1
            )
            # For each offset, the residual stream and the first block's projections, (width + 15 * heads, 66).
            self._table = torch.cat([table.t(), first.keys @ seen.t(), first.queries @ seen.t()]).contiguous()
            self._out = encoder.pre_vq_proj.weight.detach().cpu().float().t().contiguous()
            self._out_bias = encoder.pre_vq_proj.bias.detach().cpu().float().clone()

    def __call__(self, rows: Neighborhoods, work: Workspace) -> Tensor:
        """Vectors before quantization, z (rows, out)."""
        with torch.inference_mode():
            return self._encoded(rows, work)

    def _encoded(self, rows: Neighborhoods, work: Workspace) -> Tensor:
        n, width, heads = len(rows.offset), self.config.width, self.config.heads
        columns = NEIGHBORS * n
        rotation = torch.from_numpy(rows.rotation).permute(2, 3, 1, 0).reshape(3, 3, columns)
        origin = torch.from_numpy(rows.origin).permute(2, 1, 0).reshape(3, columns)
        offset = torch.from_numpy(rows.offset).t().reshape(columns)
        absent = None if rows.exists.all() else _absent(torch.from_numpy(rows.exists))

        looked_up = work.array("looked up", len(self._table), columns)
        torch.index_select(self._table, 1, offset, out=looked_up)
        x, keys, queries = torch.split(looked_up, [width, 9 * heads, 6 * heads])
        for depth, block in enumerate(self._blocks):
            asked = n if depth == len(self._blocks) - 1 else columns  # the last block: the query's column only
            if depth:
                normed = _normed(x, block.epsilons[0], work)
                keys = torch.mm(block.keys, normed, out=work.array("keys", 9 * heads, columns))
                queries = torch.mm(block.queries, normed[:, :asked], out=work.array("queries", 6 * heads, asked))
            attended = self._attended(
                keys.view(3, 3, heads, columns),
                queries[:, :asked].reshape(2, 3, heads, asked),
                (rotation, origin[:, None] * block.distance_scale),
                absent,
                work,
            )
            x = x[:, :asked]
            x.addmm_(block.out, attended)
            self._feed_forward(x, block, work)
        return torch.addmm(self._out_bias, x.t(), self._out)

    def _attended(
        self,
        keys: Tensor,
        queries: Tensor,
        frames: tuple[Tensor, Tensor],
        absent: Tensor | None,
        work: Workspace,
    ) -> Tensor:
        """Attention output before the output projection, above a row of ones: (3 * heads + 1, queries).

        keys: (3, 3, heads, columns); queries: (2, 3, heads, queries); both in their own frames. frames: rotation (3, 3,
        columns), and origin scaled for each head (3, heads, columns). absent: (16, rows), or None.
        """
        rotation, origin = frames
        heads, columns, asked = keys.shape[2], keys.shape[3], queries.shape[3]
        n = columns // NEIGHBORS
        keys = _rotated(rotation, keys, work.array("rotated keys", *keys.shape))
        queries = _rotated(rotation[..., :asked], queries, work.array("rotated queries", *queries.shape))
        keys[2].add_(origin)
        queries[1].add_(origin[..., :asked])
        seen = work.array("seen", 1, 3, heads, asked)
        _attend(
            keys.view(3, 3, heads, NEIGHBORS, n),
            queries.view(2, 3, heads, asked // n, n),
            absent,
            seen.view(3, heads, asked // n, n),
            work,
        )
        back = _with_ones("back", 3 * heads, asked, work)
        # The transpose of a rotation is its inverse.
        _rotated(rotation[..., :asked].transpose(0, 1), seen, back[:-1].view(1, 3, heads, asked))
        return back

    def _feed_forward(self, x: Tensor, block: _Weights, work: Workspace) -> None:
        """Add SwiGLU's output to x (width, columns)."""
        normed = _normed(x, block.epsilons[1], work)
        hidden = self.config.hidden
        for start in range(0, x.shape[1], _FEED_FORWARD_COLUMNS):
            some = slice(start, min(start + _FEED_FORWARD_COLUMNS, x.shape[1]))
            columns = some.stop - some.start
            up = torch.mm(block.up, normed[:, some], out=work.array("up", 2 * hidden, columns))
            gated = _with_ones("gated", hidden, columns, work)
            torch.mul(F.silu(up[:hidden], inplace=True), up[hidden:], out=gated[:-1])
            x[:, some].addmm_(block.down, gated)


def _attend(keys: Tensor, queries: Tensor, absent: Tensor | None, seen: Tensor, work: Workspace) -> None:
    """Write to `seen` the means of values, by attention of each query to the 16 slots of its row, in one common frame.

    keys: (3, 3, heads, 16, rows). queries: (2, 3, heads, slots, rows). absent: (16, rows), or None. seen: (3, heads,
    slots, rows).
    """
    heads, n = keys.shape[2], keys.shape[4]
    together = max(1, _PAIR_ELEMENTS // (NEIGHBORS * n))
    for first in range(0, heads, together):
        some = slice(first, min(first + together, heads))
        (kx, ky, kz), value, (ox, oy, oz) = keys[:, :, some].unbind(0)
        shape = kx.shape
        weight, apart = work.array("weight", *shape), work.array("apart", *shape)
        for slot in range(queries.shape[3]):
            (qx, qy, qz), (px, py, pz) = queries[:, :, some, slot : slot + 1].unbind(0)
            # The distance term, |p - o|, from the differences: expanding the square would cancel.
            torch.sub(ox, px, out=apart)
            distance = torch.mul(apart, apart, out=weight)
            torch.sub(oy, py, out=apart)
            distance.addcmul_(apart, apart)
            torch.sub(oz, pz, out=apart)
            distance.addcmul_(apart, apart).sqrt_()
            # Subtracted from the rotation term, q . k.
            logits = torch.mul(kx, qx, out=apart).addcmul_(ky, qy).addcmul_(kz, qz).sub_(distance)
            if absent is not None:
                logits.add_(absent)
            torch.softmax(logits, 1, out=weight)
            for component in range(3):
                torch.mul(weight, value[component], out=apart)
                torch.sum(apart, 1, out=seen[component, some, slot])


def _rotated(rotation: Tensor, local: Tensor, out: Tensor) -> Tensor:
    """rotation (3, 3, columns), local and out (groups, 3, heads, columns)."""
    for i in range(3):
        torch.mul(local[:, 0], rotation[i, 0], out=out[:, i])
        out[:, i].addcmul_(local[:, 1], rotation[i, 1]).addcmul_(local[:, 2], rotation[i, 2])
    return out


def _normed(x: Tensor, epsilon: float, work: Workspace) -> Tensor:
    """x (width, columns), normalized to zero mean and unit standard deviation, above a row of ones."""
    normed = _with_ones("normed", x.shape[0], x.shape[1], work)
    body = torch.sub(x, x.mean(0), out=normed[:-1])
    square = torch.mul(body, body, out=work.array("up", *x.shape))  # memory that is unused until the feed-forward
    body.mul_(square.mean(0).add_(epsilon).rsqrt_())
    return normed


def _with_ones(name: str, features: int, columns: int, work: Workspace) -> Tensor:
    array = work.array(name, features + 1, columns)
    array[-1] = 1.0
    return array


def _absent(exists: Tensor) -> Tensor:
    """What is added to the logits, (16, rows): minus infinity for empty slots. exists: (rows, 16)."""
    return torch.zeros(exists.shape[::-1]).masked_fill_(~exists.t(), float("-inf"))


def _weights(block: Block) -> _Weights:
    attention = block.geom_attn
    norm, up, _, down = cast(tuple[nn.LayerNorm, nn.Linear, nn.Module, nn.Linear], tuple(block.ffn))
    heads = attention.heads
    # The published order is vector, head, component. The vectors are the rotation's query and key, the value, and the
    # distance's query and key.
    weight, bias = (part.view(5, heads, 3, -1).transpose(1, 2) for part in _folded(attention.proj, attention.s_norm))
    whole = torch.cat([weight, bias], -1)  # (5, 3, heads, width + 1)
    by_rotation, by_distance = (
        F.softplus(scale.detach().cpu().double())[:, None] / sqrt(3)
        for scale in (attention.rotation_scale_per_head, attention.distance_scale_per_head)
    )
    keys = torch.stack([whole[1], whole[2], whole[4] * by_distance]).flatten(0, 2)
    queries = torch.stack([whole[0] * by_rotation, whole[3] * by_distance]).flatten(0, 2)
    out_weight, out_bias = _folded(attention.out_proj)
    out_weight = out_weight.view(-1, heads, 3).transpose(1, 2).flatten(1)
    return _Weights(
        keys.float().contiguous(),
        queries.float().contiguous(),
        by_distance.float(),
        torch.cat([out_weight, out_bias], -1).float(),
        torch.cat(_folded(up, norm), -1).float(),
        torch.cat(_folded(down), -1).float(),
        (attention.s_norm.eps, norm.eps),
    )


def _folded(linear: nn.Linear, norm: nn.LayerNorm | None = None) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out, 1), in float64, with the preceding norm's scale and shift folded in."""
    weight = linear.weight.detach().cpu().double()
    bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().cpu().double()
    if norm is not None:
        if norm.bias is not None:
            bias = bias + weight @ norm.bias.detach().cpu().double()
        weight = weight * norm.weight.detach().cpu().double()
    return weight, bias[:, None]
