"""Temporal attention, spatial attention and the dual module of CompFeat, for frames and objects.

    Eq. 1   X = key_S^T key_C                                     [T H W, H W]
            f_A(:, j) = F(value_S softmax(X(:, j)))               the softmax over all T H W cells of the supports
            F_TA(f_C, f_S) = f_A
    GC      F_SA(f_C) = W2 ReLU(LN(W1 sum_p softmax_p(Wk f_C) f_C(:, p)))      one vector for all cells
    Eq. 2   f_agg = F_TA(f_C, f_S) + F_SA(f_C) + f_C

    f_C     current     maps of one frame, or regions cut from them      B C H W
    f_S     context     maps of S support frames (the paper's T)         B S C h w
    key_C   query       C -> D (the paper's C/4), ReLU
    key_S   key         C -> D, ReLU
    value_S value       C -> D, ReLU
    F       out         ReLU, then 1x1, D -> C
    L = H W current cells, K = S h w support cells.

Source: docs/papers/compfeat.md.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tubelet.attention.fused import attend, encode
from tubelet.core.config import Config


def similarities(
    keys: Float[Tensor, "B D K"],
    queries: Float[Tensor, "B D L"],
) -> Float[Tensor, "B K L"]:
    """Compute the logits X of Eq. 1.

    This makes the whole K x L table: `TemporalAttention.forward` uses `fused_aggregate` instead.

    Example:
        >>> from tubelet.attention.dual import similarities
        >>> similarities(torch.ones(1, 8, 3), torch.ones(1, 8, 2))
        tensor([[[8., 8.],
                 [8., 8.],
                 [8., 8.]]])
    """
    return keys.transpose(1, 2) @ queries


def aggregate(
    values: Float[Tensor, "B D K"],
    logits: Float[Tensor, "B K L"],
) -> Float[Tensor, "B D L"]:
    """Average the values by the softmax of the logits: value_S softmax(X) of Eq. 1, before F.

    Example:
        >>> from tubelet.attention.dual import aggregate
        >>> aggregate(torch.tensor([[[1.0, 3.0]]]), torch.zeros(1, 2, 4))
        tensor([[[2., 2., 2., 2.]]])
    """
    return values @ logits.softmax(1)


def fused_aggregate(
    keys: Float[Tensor, "B D K"],
    queries: Float[Tensor, "B D L"],
    values: Float[Tensor, "B E K"],
    scale: float = 1.0,
    valid: Bool[Tensor, "B K"] | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "B E L"]:
    """Compute both steps of Eq. 1 together, without the K x L table.

    Args:
        keys: Of the support cells.
        queries: Of the current cells.
        values: Of the support cells.
        scale: Factor on the logits.
        valid: Support cells that take part; None for all.
        chunk: Current cells to process at a time; None to choose the faster way.

    Example:
        >>> from tubelet.attention.dual import fused_aggregate
        >>> keys, queries = torch.zeros(1, 8, 2), torch.ones(1, 8, 3)
        >>> fused_aggregate(keys, queries, values=torch.tensor([[[1.0, 3.0]]]))
        tensor([[[2., 2., 2.]]])
    """
    rows = queries.transpose(1, 2)
    key_rows = keys.transpose(1, 2)
    value_rows = values.transpose(1, 2)
    return attend(rows, key_rows, value_rows, scale, valid, chunk).transpose(1, 2)


def global_context(
    features: Float[Tensor, "B C H W"],
    logits: Float[Tensor, "B 1 H W"],
    valid: Bool[Tensor, "B H W"] | None = None,
) -> Float[Tensor, "B C 1 1"]:
    """Average the cells by the softmax of their logits over the valid ones.

    Example:
        >>> from tubelet.attention.dual import global_context
        >>> global_context(torch.tensor([[[[1.0, 3.0]]]]), torch.zeros(1, 1, 1, 2))
        tensor([[[[2.]]]])
    """
    logits = logits.flatten(2)  # [B, 1, L]
    if valid is not None:
        logits = logits.masked_fill(~valid.flatten(1)[:, None], float("-inf"))
    return (features.flatten(2) @ logits.softmax(2).transpose(1, 2))[..., None]


def dual(
    current: Float[Tensor, "B C H W"],
    temporal: Float[Tensor, "B C H W"] | None,
    spatial: Float[Tensor, "B C 1 1"] | None,
) -> Float[Tensor, "B C H W"]:
    """Add both branches to the current maps: Eq. 2; a branch that is None adds nothing.

    Example:
        >>> from tubelet.attention.dual import dual
        >>> maps = torch.ones(1, 1, 1, 2)
        >>> dual(maps, temporal=maps, spatial=torch.tensor([[[[5.0]]]]))
        tensor([[[[7., 7.]]]])
    """
    for update in (temporal, spatial):
        current = current if update is None else current + update
    return current


class TemporalAttention(nn.Module):
    """F_TA: attention of the current maps to the support frames.

    Example:
        >>> from tubelet.attention.dual import DualConfig, TemporalAttention
        >>> branch = TemporalAttention(DualConfig(), channels=8)
        >>> branch(torch.rand(1, 8, 4, 6), torch.rand(1, 2, 8, 4, 6)).shape
        torch.Size([1, 8, 4, 6])
    """

    def __init__(self, config: DualConfig, channels: int) -> None:
        super().__init__()
        width = config.key_channels or max(channels // 4, 1)
        padding = config.kernel // 2
        self.query = nn.Conv2d(channels, width, config.kernel, padding=padding)
        self.key = nn.Conv2d(channels, width, config.kernel, padding=padding)
        self.value = nn.Conv2d(channels, width, config.kernel, padding=padding)
        self.out = nn.Conv2d(width, channels, 1)
        self.scale = width**-0.5 if config.scale == "sqrt" else 1.0
        self.post_relu = config.post_relu
        if config.zero_init:
            _zero(self.out)

    def forward(
        self,
        current: Float[Tensor, "B C H W"],
        context: Float[Tensor, "A S C h w"],
        valid: Bool[Tensor, "A S h w"] | None = None,
    ) -> Float[Tensor, "B C H W"]:
        """Return the update of the current maps.

        A = B, or A = 1 if all maps share one context, whose keys and values are then computed once.
        B may be 0. `valid` marks the cells of the context inside the unpadded image.
        """
        queries = F.relu(self.query(current)).transpose(0, 1)  # [D, B, H, W]
        if len(context) == 1:
            groups = queries.flatten(1)[None]  # [1, D, B L]
        else:
            groups = queries.transpose(0, 1).flatten(2)  # [B, D, L]
        keys = encode(self.key, context)
        values = encode(self.value, context)

        rows = None if valid is None else valid.flatten(1)
        attended = fused_aggregate(keys, groups, values, self.scale, rows)
        attended = attended.transpose(0, 1).reshape(queries.shape).transpose(0, 1)  # [B, D, H, W]
        return F.relu(self.out(attended)) if self.post_relu else self.out(F.relu(attended))

    def look(
        self,
        current: Float[Tensor, "1 C H W"],
        context: Float[Tensor, "1 S C h w"],
        cells: Int[Tensor, "N"],
        valid: Bool[Tensor, "1 S h w"] | None = None,
    ) -> Float[Tensor, "N S h w"]:
        """Return the attention weights of N current cells, numbered row by row; each sums to 1."""
        queries = F.relu(self.query(current)).flatten(2)[..., cells]
        logits = self.scale * similarities(encode(self.key, context), queries)
        if valid is not None:
            logits = logits.masked_fill(~valid.flatten(1)[..., None], float("-inf"))
        return logits.softmax(1)[0].T.reshape(-1, *context.shape[1:2], *context.shape[3:])


class SpatialAttention(nn.Module):
    """F_SA: one update for all cells, from a learned average of them (a global-context block).

    Example:
        >>> from tubelet.attention.dual import DualConfig, SpatialAttention
        >>> branch = SpatialAttention(DualConfig(), channels=8)
        >>> branch(torch.rand(2, 8, 4, 6)).shape
        torch.Size([2, 8, 1, 1])
    """

    def __init__(self, config: DualConfig, channels: int) -> None:
        super().__init__()
        width = max(channels // config.ratio, 1)
        self.weigh = nn.Conv2d(channels, 1, 1)
        self.squeeze = nn.Conv2d(channels, width, 1)
        self.norm = nn.LayerNorm([width, 1, 1])
        self.out = nn.Conv2d(width, channels, 1)
        if config.zero_init:
            _zero(self.out)

    def forward(
        self, current: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B C 1 1"]:
        """Return the update, from the cells that are `valid`: inside the unpadded image."""
        average = global_context(current, self.weigh(current), valid)
        return self.out(F.relu(self.norm(self.squeeze(average))))


class Dual(nn.Module):
    """The dual module: the temporal branch, the spatial branch or both, added to the current maps.

    Example:
        >>> from tubelet.attention.dual import DualConfig
        >>> module = DualConfig().build(channels=8)
        >>> current, context = torch.rand(1, 8, 4, 6), torch.rand(1, 2, 8, 4, 6)
        >>> torch.equal(module(current, context), current)  # the last convolutions start at 0
        True
    """

    def __init__(self, config: DualConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.temporal = TemporalAttention(config, channels) if config.temporal else None
        self.spatial = SpatialAttention(config, channels) if config.spatial else None

    def forward(
        self,
        current: Float[Tensor, "B C H W"],
        context: Float[Tensor, "A S C h w"],
        valid: Bool[Tensor, "A S h w"] | None = None,
        current_valid: Bool[Tensor, "B H W"] | None = None,
    ) -> Float[Tensor, "B C H W"]:
        """Refine maps or regions by support maps.

        Computed in float32 even under autocast, returned in the type of `current`.

        Args:
            current: B maps or regions.
            context: Support maps: A = B, or A = 1 if all share one context (regions of one image).
            valid: Cells of the context inside the unpadded image.
            current_valid: Cells of the current maps inside the unpadded image.

        Raises:
            ValueError: if A is neither 1 nor B.
        """
        if len(context) not in (1, len(current)):
            raise ValueError(f"expected one context or one for each of {len(current)} maps, got {len(context)}")
        with torch.autocast(current.device.type, enabled=False):
            supports = (context if self.config.context_gradient else context.detach()).float()
            x = current.float()
            temporal = None if self.temporal is None else self.temporal(x, supports, valid)
            spatial = None if self.spatial is None else self.spatial(x, current_valid)
            return dual(x, temporal, spatial).to(current.dtype)

    def look(
        self,
        current: Float[Tensor, "1 C H W"],
        context: Float[Tensor, "1 S C h w"],
        cells: Int[Tensor, "N"],
        valid: Bool[Tensor, "1 S h w"] | None = None,
    ) -> Float[Tensor, "N S h w"] | None:
        """Return the temporal branch's attention weights of N current cells; None without it."""
        if self.temporal is None:
            return None
        with torch.autocast(current.device.type, enabled=False):
            return self.temporal.look(current.float(), context.float(), cells, valid)


def _zero(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class DualConfig(Config):
    """Settings of the dual module and of how the host uses it, see docs/papers/compfeat.md.

    Example:
        >>> from tubelet.attention.dual import DualConfig
        >>> module = DualConfig(spatial=False, key_channels=64).build(channels=256)
        >>> module.spatial is None, module.temporal.key.out_channels
        (True, 64)
    """

    kind: Literal["dual"] = "dual"
    temporal: bool = True
    spatial: bool = True
    key_channels: int | None = Field(default=None, ge=1)  # of keys and values; None: a quarter of the maps'
    kernel: Literal[1, 3] = 1  # of the three encoders
    scale: Literal["none", "sqrt"] = "none"  # of the logits; sqrt divides by the root of key_channels
    post_relu: bool = False  # rectify after the last convolution (the update is then never negative), not before it
    ratio: int = Field(default=4, ge=1)  # by which the spatial branch reduces the channels
    zero_init: bool = True  # of both last convolutions: the module starts as the identity
    context_gradient: bool = True  # let gradients reach the supports' maps

    @model_validator(mode="after")
    def _check_branches(self) -> DualConfig:
        if not (self.temporal or self.spatial):
            raise ValueError("at least one of temporal and spatial must be on")
        if self.temporal and self.post_relu and self.zero_init:
            raise ValueError("post_relu after a convolution of zeros passes no gradient: set zero_init=false with it")
        return self

    def build(self, channels: int) -> Dual:
        """Build the module for maps of this many channels."""
        return Dual(self, channels)
