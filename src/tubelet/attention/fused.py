"""Softmax attention without the Q x K table of weights, forward and backward.

    out_q = sum_k softmax_k(scale <query_q, key_k>) value_k        the softmax over all K keys

Equal to the literal product up to the rounding of float32, in memory that grows with Q + K instead
of Q K. On an accelerator, and for small tables, this is `F.scaled_dot_product_attention`. On a CPU
two things call for more:

- Logits that are not scaled down, as in STA and CompFeat, often reach tens or hundreds. Then almost
  all weights are zero in float32, and neighbouring queries attend to the same few keys. `_Chunked`
  takes a chunk of queries at a time and computes only with the keys that matter to it.
- With keys and values of different widths, torch's kernel for the CPU makes the whole table.

Measured on one thread of an AMD EPYC, processor seconds forward + backward, and peak extra memory;
256 channels of keys, Q = K, and the share of the keys that a chunk attends to:

    Q, value channels   share    torch's kernel    `_Chunked`        literal
    15360, 256          1.00     8.3 s   111 MB    10.1 s  159 MB    9.6 s  2768 MB
    15360, 256          0.015    8.4 s   111 MB     1.6 s  159 MB    9.2 s  2750 MB
    3840, 64            1.00     0.42 s  213 MB     0.42 s  78 MB    0.40 s  205 MB
    3840, 64            0.09     0.42 s  213 MB     0.15 s  60 MB    0.41 s  205 MB

Letters: B batch, Q queries, K keys, D channels of keys, E channels of values.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

TABLE = 2**21  # weights that exist at a time, 8 MB: a chunk has as many queries as that allows
LARGE = 2**22  # entries, 16 MB: smaller tables go to torch's kernel without a look at their weights
PROBES = 4  # chunks, evenly spread, that the share of keys that matter is estimated from
# share below which `_Chunked` is used even for equal widths: at 0.09 it takes a third of the time
FEW = 0.15
# share from which a chunk uses all keys: to pick nearly all costs 5 % time and 13 % memory
WORTH_PICKING = 0.7
# weights that together stay below exp(-NOTHING) are lost in the rounding of float32
NOTHING = math.log(2**24)


def encode(convolution: nn.Conv2d, maps: Float[Tensor, "B S C H W"]) -> Float[Tensor, "B D K"]:
    """Apply a convolution and ReLU to S maps; their cells are the K = S H W keys or values.

    Example:
        >>> from tubelet.attention.fused import encode
        >>> encode(torch.nn.Conv2d(8, 4, kernel_size=1), torch.rand(1, 2, 8, 3, 5)).shape
        torch.Size([1, 4, 30])
    """
    encoded = F.relu(convolution(maps.flatten(0, 1)))
    return encoded.unflatten(0, maps.shape[:2]).transpose(1, 2).flatten(2)


def attend(
    queries: Float[Tensor, "B Q D"],
    keys: Float[Tensor, "B K D"],
    values: Float[Tensor, "B K E"],
    scale: float = 1.0,
    valid: Bool[Tensor, "B K"] | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "B Q E"]:
    """Compute each query's average of the values, weighted by the softmax of its logits.

    Computed and returned in float32, even under autocast.

    Args:
        queries: One row per query.
        keys: One row per key.
        values: One row per key.
        scale: Factor on the logits.
        valid: Keys that take part, at least one per batch element; None for all.
        chunk: Queries to process at a time; None to choose the faster way.

    Example:
        >>> from tubelet.attention.fused import attend
        >>> values = torch.tensor([[[1.0], [3.0]]])
        >>> attend(torch.zeros(1, 3, 8), torch.ones(1, 2, 8), values)
        tensor([[[2.],
                 [2.],
                 [2.]]])
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries = queries.float()
        keys = keys.float()
        values = values.float()
        if scale != 1.0:
            queries = queries * scale

        all_valid = valid is None or bool(valid.all())
        if all_valid and chunk is None and not _is_large(queries, keys):
            return _kernel(queries, keys, values)

        outputs = []
        for b in range(len(queries)):
            key = keys[b]
            value = values[b]
            if valid is not None and not all_valid:
                # keys in padding are left out, not masked: less work, and a mask excludes kernels
                key = key[valid[b]]
                value = value[valid[b]]
            outputs.append(_attend(queries[b], key, value, chunk))

        if len(outputs) == 1:
            return outputs[0][None]  # to stack it would copy it
        return torch.stack(outputs)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, chunk: int | None) -> Tensor:
    """One batch element: [Q, D], [K, D], [K, E] -> [Q, E]."""
    if chunk is None and (not _is_large(queries, keys) or _suits_kernel(queries, keys, values)):
        return _kernel(queries[None], keys[None], values[None])[0]
    rows = [x.contiguous() for x in (queries, keys, values)]  # picking keys out of columns is slow
    result = _Chunked.apply(*rows, chunk or _chunk(keys))
    assert isinstance(result, Tensor)
    return result


def _kernel(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """torch's attention: [B, Q, D], [B, K, D], [B, K, E] -> [B, Q, E]."""
    query = queries.contiguous()[:, None]
    key = keys.contiguous()[:, None]
    value = values.contiguous()[:, None]
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]


# the choice between the two


def _is_large(queries: Tensor, keys: Tensor) -> bool:
    """Whether to choose by the weights; never on an accelerator, for which the test is slow."""
    return queries.device.type == "cpu" and queries.shape[-2] * keys.shape[-2] >= LARGE


def _suits_kernel(queries: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether torch's kernel makes no table (it needs equal widths) and wastes few products."""
    return keys.shape[-1] == values.shape[-1] and _share_that_matters(queries, keys) >= FEW


@torch.no_grad()
def _share_that_matters(queries: Tensor, keys: Tensor) -> float:
    """Estimate the share of the keys that matter to a chunk of neighbouring queries."""
    chunk = _chunk(keys)
    starts = torch.linspace(0, max(len(queries) - chunk, 0), PROBES).long().tolist()
    shares = []
    for start in starts:
        mattering = _mattering(_shifted(queries[start : start + chunk], keys))
        shares.append(mattering.float().mean())
    return float(torch.stack(shares).mean())


def _chunk(keys: Tensor) -> int:
    return max(TABLE // len(keys), 1)


# the chunks


class _Chunked(torch.autograd.Function):
    """Attention for a chunk of queries at a time, with the keys that matter to it.

    The backward pass computes the weights again, as `torch.utils.checkpoint` would, but with the
    same few keys: at a share of 0.09 (3,840 queries, 256 channels) in 0.06 s instead of 0.41 s.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, chunk: int) -> Tensor:
        out = values.new_empty(len(queries), values.shape[1])
        picked: list[Tensor | None] = []
        for query, output in zip(queries.split(chunk), out.split(chunk), strict=True):
            logits = _shifted(query, keys)
            rows = _worth_picking(_mattering(logits))
            picked.append(rows)

            weights = _pick(logits, 1, rows).exp_()
            torch.mm(weights, _pick(values, 0, rows), out=output)
            output /= weights.sum(1, keepdim=True)

        ctx.picked = picked
        ctx.chunk = chunk
        ctx.save_for_backward(queries, keys, values, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, values, out = ctx.saved_tensors
        query_gradient = torch.zeros_like(queries)
        key_gradient = torch.zeros_like(keys)
        value_gradient = torch.zeros_like(values)

        chunks = [x.split(ctx.chunk) for x in (queries, out, out_gradient, query_gradient)]
        for query, output, gradient, into, rows in zip(*chunks, ctx.picked, strict=True):
            some_keys = _pick(keys, 0, rows)
            weights = _shifted(query, some_keys).exp_()
            weights /= weights.sum(1, keepdim=True)

            # through the softmax: weights * (gradient of the weights - its mean under the weights)
            logit_gradient = torch.mm(gradient, _pick(values, 0, rows).T)
            logit_gradient -= (gradient * output).sum(1, keepdim=True)
            logit_gradient *= weights

            torch.mm(logit_gradient, some_keys, out=into)
            _add_product(value_gradient, rows, weights.T, gradient)
            _add_product(key_gradient, rows, logit_gradient.T, query)
        return query_gradient, key_gradient, value_gradient, None


def _shifted(queries: Tensor, keys: Tensor) -> Tensor:
    """Logits [Q, K], each row minus its maximum."""
    logits = queries @ keys.T
    return logits.sub_(logits.amax(1, keepdim=True))


def _mattering(shifted: Tensor) -> Tensor:
    """The keys with weight for any query, bool [K]; the others together are lost in rounding."""
    return shifted.amax(0) > -(NOTHING + math.log(shifted.shape[1]))


def _worth_picking(mattering: Tensor) -> Tensor | None:
    """The numbers of the keys that matter; None to use all, as on GPUs, where to count them is to wait."""
    if mattering.device.type != "cpu":
        return None
    rows = mattering.nonzero()[:, 0]
    return rows if len(rows) < WORTH_PICKING * len(mattering) else None


def _pick(x: Tensor, dim: int, rows: Tensor | None) -> Tensor:
    return x if rows is None else x.index_select(dim, rows)


def _add_product(total: Tensor, rows: Tensor | None, left: Tensor, right: Tensor) -> None:
    """Add left @ right to these rows of the total, or to all."""
    if rows is None:
        total.addmm_(left, right)
    else:
        total.index_add_(0, rows, torch.mm(left, right))
