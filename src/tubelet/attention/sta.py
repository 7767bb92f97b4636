"""Spatio-temporal attention (STA), Eq. 1-3; the attention neck of the ObjProp variant is the same block.

    Eq. 1   Cor(x0, x1) = S[ Conv1(x0)^T Conv1(x1) ]      rows = cells of the previous frame, columns = of the current
    Eq. 2   A(x0, x1)   = Conv2(x1) Cor(x0, x1)
    Eq. 3   STA(x0, x1) = Gamma A(x0, x1) + x1

    x0      context      maps of the previous frame (or of S frames)      B S C H W
    x1      current      maps of the current frame                        B C H W
    Conv1   match        C -> D (the paper's c1), shared by both frames
    Conv2   value        C -> C
    S       the softmax over rows, so that each current cell gets a convex combination
    Gamma   gamma        one learned number
    L = H W cells of one map; K = S L cells of the context.

Source: docs/papers/sta.md.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from tubelet.attention.fused import attend, encode
from tubelet.core.config import Config


def correlation(
    previous: Float[Tensor, "B D K"], current: Float[Tensor, "B D L"], scale: float = 1.0
) -> Float[Tensor, "B K L"]:
    """Eq. 1 after Conv1; every column sums to 1. For tests and for looking: the module never holds it whole."""
    return (scale * previous.transpose(1, 2) @ current).softmax(1)


def attention(values: Float[Tensor, "B C K"], weights: Float[Tensor, "B K L"]) -> Float[Tensor, "B C L"]:
    """Eq. 2 after Conv2, given Eq. 1's weights."""
    return values @ weights


def fused_attention(
    previous: Float[Tensor, "B D K"],
    current: Float[Tensor, "B D L"],
    values: Float[Tensor, "B C K"],
    scale: float = 1.0,
    valid: Bool[Tensor, "B K"] | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "B C L"]:
    """Eq. 1 and 2 in one, without the table of K x L; `valid` marks the rows that take part."""
    queries, keys, rows = (x.transpose(1, 2) for x in (current, previous, values))
    return attend(queries, keys, rows, scale, valid, chunk).transpose(1, 2)


def combine(
    refined: Float[Tensor, "B C H W"], current: Float[Tensor, "B C H W"], gamma: Float[Tensor, ""]
) -> Float[Tensor, "B C H W"]:
    """Eq. 3."""
    return gamma * refined + current


class STA(nn.Module):
    """One block; the host shares it over the levels of a pyramid."""

    def __init__(self, config: STAConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        width, padding = config.channels or channels, config.kernel // 2
        self.match = nn.Conv2d(channels, width, config.kernel, padding=padding)
        self.value = nn.Conv2d(channels, channels, config.kernel, padding=padding)
        self.gamma = nn.Parameter(torch.tensor(config.gamma_init))
        self.scale = width**-0.5 if config.scale == "sqrt" else 1.0
        if config.init == "xavier":
            for conv in (self.match, self.value):
                nn.init.xavier_uniform_(conv.weight)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)

    def forward(
        self,
        current: Float[Tensor, "B C H W"],
        context: Float[Tensor, "B S C h w"],
        valid: Bool[Tensor, "B S h w"] | None = None,
    ) -> Float[Tensor, "B C H W"]:
        """Refine the current maps by the context's; computed in float32, returned in the type of `current`.

        `valid` marks the context's cells that lie inside the unpadded image; the others are no keys. Raises ValueError
        where value_from="current" meets a context that is not one map of the current one's size.
        """
        with torch.autocast(current.device.type, enabled=False):
            x1, x0 = current.float(), context.float()
            values = encode(self.value, self._source(x1, x0))
            rows = None if valid is None else valid.flatten(1)
            refined = fused_attention(
                encode(self.match, x0), F.relu(self.match(x1)).flatten(2), values, self.scale, rows
            )
            return combine(refined.reshape(x1.shape), x1, self.gamma).to(current.dtype)

    def look(
        self,
        current: Float[Tensor, "1 C H W"],
        context: Float[Tensor, "1 S C h w"],
        cells: Int[Tensor, "N"],
        valid: Bool[Tensor, "1 S h w"] | None = None,
    ) -> Float[Tensor, "N S h w"]:
        """Where N cells of the current map (numbered row by row) look in the context; each sums to 1."""
        with torch.autocast(current.device.type, enabled=False):
            queries = F.relu(self.match(current.float())).flatten(2)[..., cells]  # [1, D, N]
            logits = self.scale * encode(self.match, context.float()).transpose(1, 2) @ queries  # [1, K, N]
        if valid is not None:
            logits = logits.masked_fill(~valid.flatten(1)[..., None], float("-inf"))
        return logits.softmax(1)[0].T.reshape(-1, *context.shape[1:2], *context.shape[3:])

    def _source(self, current: Tensor, context: Tensor) -> Tensor:
        """The maps that Conv2 reads, as B S C H W."""
        if self.config.value_from == "previous":
            return context
        if context.shape != current[:, None].shape:
            raise ValueError(
                "value_from='current' pairs each previous cell with one current cell: expected context of shape "
                f"{tuple(current[:, None].shape)}, got {tuple(context.shape)}; set value_from='previous'"
            )
        return current[:, None]


class STAConfig(Config):
    """The block's readings of unclear points. Defaults: docs/papers/sta.md."""

    kind: Literal["sta"] = "sta"
    channels: int | None = Field(default=None, ge=1)  # the paper's c1; None: as many as the maps have
    kernel: Literal[1, 3] = 3  # of both convolutions
    gamma_init: float = Field(default=0.0, allow_inf_nan=False)
    scale: Literal["none", "sqrt"] = "none"  # of the logits; sqrt divides by the root of c1
    value_from: Literal["current", "previous"] = "current"  # what Conv2 reads; current is Eq. 2 to the letter
    init: Literal["default", "xavier"] = "default"

    def build(self, channels: int) -> STA:
        """For maps of that many channels."""
        return STA(self, channels)
