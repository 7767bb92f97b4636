"""Softmax attention that never holds the whole table of weights: what the papers' L x L products become here.

out_q = sum_k softmax_k(scale <query_q, key_k>) value_k, the softmax over all K keys. Equal to the literal product up to
the rounding of float32, in memory that grows with Q + K instead of Q K, forward and backward.

Two ways lead there. The fused kernel of the library costs what its products cost. Logits that are not scaled down,
as in STA and CompFeat, often reach tens or hundreds: then almost all weights of a query are zeros in float32, and a
chunk of queries is finished with the few keys that any of them looks at, forward and backward alike.

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

TABLE = 2**21  # weights that are held at once, 8 MB: a chunk of queries has so many
LARGE = 2**22  # entries of a table, 16 MB, from which on it is not held whole and asked how many of them matter
PROBES = 4  # chunks, evenly spread, that are asked
FEW = 0.15  # share of the keys below which products with the kept ones alone beat the kernel
WORTH_PICKING = 0.7  # share below which, within a chunk, picking keys out costs less than it saves
NOTHING = math.log(2**24)  # weights that together stay below exp(-NOTHING) are lost in the rounding of float32


def encode(convolution: nn.Conv2d, maps: Float[Tensor, "B S C H W"]) -> Float[Tensor, "B D K"]:
    """Convolution and ReLU of S maps, their cells in one row: K = S H W keys or values."""
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
    """Each query's convex combination of the values; in float32 even under autocast.

    `valid` marks the keys that take part, at least one per batch element. `chunk` asks for that many queries at a time;
    by default the faster way is taken.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys, values = queries.float(), keys.float(), values.float()
        if scale != 1.0:
            queries = queries * scale
        if valid is not None and not bool(valid.all()):
            # keys in padding are left out rather than masked: less work, and no kernel is lost to a mask
            pairs = [(k[inside], v[inside]) for k, v, inside in zip(keys, values, valid, strict=True)]
        elif chunk is None and not _is_large(queries, keys):
            return _kernel(queries, keys, values)
        else:
            pairs = list(zip(keys, values, strict=True))
        parts = [_attend(q, *pair, chunk) for q, pair in zip(queries, pairs, strict=True)]
        return torch.stack(parts) if len(parts) > 1 else parts[0][None]  # stacking one would copy it


def _attend(queries: Tensor, keys: Tensor, values: Tensor, chunk: int | None) -> Tensor:
    """One batch element: [Q, D], [K, D], [K, E] -> [Q, E]."""
    if chunk is None and (not _is_large(queries, keys) or _suits_kernel(queries, keys, values)):
        return _kernel(queries[None], keys[None], values[None])[0]
    rows = [x.contiguous() for x in (queries, keys, values)]  # picking keys out of columns is slow
    result = _Chunked.apply(*rows, chunk or _chunk(keys))
    assert isinstance(result, Tensor)
    return result


def _is_large(queries: Tensor, keys: Tensor) -> bool:
    """An accelerator would wait for the answer below longer than it gains: its tables count as small."""
    return queries.device.type == "cpu" and queries.shape[-2] * keys.shape[-2] >= LARGE


def _suits_kernel(queries: Tensor, keys: Tensor, values: Tensor) -> bool:
    """On a CPU the kernel wants keys and values of one width, or holds the whole table; and it does all products."""
    return keys.shape[-1] == values.shape[-1] and _share_that_matters(queries, keys) >= FEW


def _kernel(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    query, key, value = (x.contiguous()[:, None] for x in (queries, keys, values))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]


@torch.no_grad()
def _share_that_matters(queries: Tensor, keys: Tensor) -> float:
    """The share of keys that a chunk of neighbouring queries looks at, from a few of them."""
    chunk = _chunk(keys)
    starts = torch.linspace(0, max(len(queries) - chunk, 0), PROBES).long().tolist()
    shares = [_mattering(_shifted(queries[start : start + chunk], keys)) for start in starts]
    return float(torch.stack([share.float().mean() for share in shares]).mean())


def _chunk(keys: Tensor) -> int:
    return max(TABLE // len(keys), 1)


def _shifted(queries: Tensor, keys: Tensor) -> Tensor:
    """Logits [Q, K], each row less its greatest."""
    logits = queries @ keys.T
    return logits.sub_(logits.amax(1, keepdim=True))


def _mattering(shifted: Tensor) -> Tensor:
    """The keys [K] that carry weight for any of the queries; those left out together are lost in rounding."""
    return shifted.amax(0) > -(NOTHING + math.log(shifted.shape[1]))


class _Chunked(torch.autograd.Function):
    """A chunk of queries at a time, with the keys that matter to it; gradients make the weights anew.

    All chunks work in the same few buffers: allocated one by one, pieces of ever other sizes tear the heap apart.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, chunk: int) -> Tensor:
        out = values.new_empty(len(queries), values.shape[1])
        room, picked_room, values_room = _room(keys, chunk), _room(keys, chunk), _room(values)
        kept: list[Tensor | None] = []
        for part, place in zip(queries.split(chunk), out.split(chunk), strict=True):
            weights = _product(part, keys.T, room)
            weights -= weights.amax(1, keepdim=True)
            keep = _worth_picking(_mattering(weights))
            kept.append(keep)
            weights = _pick(weights, 1, keep, picked_room).exp_()
            torch.mm(weights, _pick(values, 0, keep, values_room), out=place)
            place /= weights.sum(1, keepdim=True)
        ctx.kept, ctx.chunk = kept, chunk
        ctx.save_for_backward(queries, keys, values, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, values, out = ctx.saved_tensors
        of_queries, of_keys, of_values = (torch.zeros_like(x) for x in (queries, keys, values))
        weights_room, slopes_room = _room(keys, ctx.chunk), _room(keys, ctx.chunk)
        keys_room, values_room = _room(keys), _room(values)
        chunked = [x.split(ctx.chunk) for x in (queries, gradient, out, of_queries)]
        for part, arriving, seen, place, keep in zip(*chunked, ctx.kept, strict=True):
            some_keys, some_values = _pick(keys, 0, keep, keys_room), _pick(values, 0, keep, values_room)
            weights = _product(part, some_keys.T, weights_room)
            weights -= weights.amax(1, keepdim=True)
            weights.exp_()
            weights /= weights.sum(1, keepdim=True)
            slopes = _product(arriving, some_values.T, slopes_room)
            slopes -= (arriving * seen).sum(1, keepdim=True)
            slopes *= weights
            torch.mm(slopes, some_keys, out=place)
            _add_rows(of_values, keep, weights.T, arriving, values_room)
            _add_rows(of_keys, keep, slopes.T, part, keys_room)
        return of_queries, of_keys, of_values, None


def _room(rows: Tensor, width: int | None = None) -> Tensor:
    """Room for a matrix of that width, or of the rows' own, with as many rows; shaped anew for each chunk."""
    return rows.new_empty(len(rows) * (width or rows.shape[1]))


def _worth_picking(mattering: Tensor) -> Tensor | None:
    """Which keys to go on with; None for all."""
    keep = mattering.nonzero()[:, 0]
    return keep if len(keep) < WORTH_PICKING * len(mattering) else None


def _pick(x: Tensor, dim: int, keep: Tensor | None, room: Tensor) -> Tensor:
    if keep is None:
        return x
    size = (len(x), len(keep)) if dim else (len(keep), x.shape[1])
    return torch.index_select(x, dim, keep, out=room[: size[0] * size[1]].view(size))


def _product(left: Tensor, right: Tensor, room: Tensor) -> Tensor:
    size = (len(left), right.shape[1])
    return torch.mm(left, right, out=room[: size[0] * size[1]].view(size))


def _add_rows(total: Tensor, rows: Tensor | None, left: Tensor, right: Tensor, room: Tensor) -> None:
    """Add left @ right to those rows of the total, or to all."""
    if rows is None:
        total.addmm_(left, right)
    else:
        total.index_add_(0, rows, _product(left, right, room))
