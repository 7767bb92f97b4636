"""Spatio-temporal attention (STA), Eq. 1-3; also the attention neck of the ObjProp variant.

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
    previous: Float[Tensor, "B D K"],
    current: Float[Tensor, "B D L"],
    scale: float = 1.0,
    valid: Bool[Tensor, "B K"] | None = None,
) -> Float[Tensor, "B K L"]:
    """Compute the attention weights of Eq. 1, after Conv1; every column sums to 1.

    Rows that are not `valid` get weight 0. This makes the whole K x L table: `STA.forward` uses
    `fused_attention` instead.

    Example:
        >>> from tubelet.attention.sta import correlation
        >>> correlation(torch.zeros(1, 8, 4), torch.ones(1, 8, 2)).tolist()
        [[[0.25, 0.25], [0.25, 0.25], [0.25, 0.25], [0.25, 0.25]]]
    """
    logits = scale * previous.transpose(1, 2) @ current
    if valid is not None:
        logits = logits.masked_fill(~valid[..., None], float("-inf"))
    return logits.softmax(1)


def attention(
    values: Float[Tensor, "B C K"],
    weights: Float[Tensor, "B K L"],
) -> Float[Tensor, "B C L"]:
    """Average the values by the weights of Eq. 1: Eq. 2, after Conv2.

    Example:
        >>> from tubelet.attention.sta import attention
        >>> values = torch.tensor([[[1.0, 3.0]]])
        >>> attention(values, torch.tensor([[[0.5, 1.0], [0.5, 0.0]]]))
        tensor([[[2., 1.]]])
    """
    return values @ weights


def fused_attention(
    previous: Float[Tensor, "B D K"],
    current: Float[Tensor, "B D L"],
    values: Float[Tensor, "B C K"],
    scale: float = 1.0,
    valid: Bool[Tensor, "B K"] | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "B C L"]:
    """Compute Eq. 1 and 2 together, without the K x L table.

    Args:
        previous: Conv1 of the context.
        current: Conv1 of the current maps.
        values: Conv2 of the maps that the values come from.
        scale: Factor on the logits.
        valid: Cells of the context that take part; None for all.
        chunk: Current cells to process at a time; None to choose the faster way.

    Example:
        >>> from tubelet.attention.sta import fused_attention
        >>> previous, current = torch.zeros(1, 8, 2), torch.ones(1, 8, 3)
        >>> fused_attention(previous, current, values=torch.tensor([[[1.0, 3.0]]]))
        tensor([[[2., 2., 2.]]])
    """
    queries = current.transpose(1, 2)
    keys = previous.transpose(1, 2)
    rows = values.transpose(1, 2)
    return attend(queries, keys, rows, scale, valid, chunk).transpose(1, 2)


def combine(
    refined: Float[Tensor, "B C H W"], current: Float[Tensor, "B C H W"], gamma: Float[Tensor, ""]
) -> Float[Tensor, "B C H W"]:
    """Add the attended maps, times gamma, to the current ones: Eq. 3.

    Example:
        >>> from tubelet.attention.sta import combine
        >>> combine(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2), torch.tensor(0.5))
        tensor([[[[1.5000, 1.5000]]]])
    """
    return gamma * refined + current


class STA(nn.Module):
    """The STA block; the host shares one over the levels of a pyramid.

    Example:
        >>> from tubelet.attention.sta import STAConfig
        >>> block = STAConfig().build(channels=8)
        >>> current, context = torch.rand(1, 8, 4, 6), torch.rand(1, 1, 8, 4, 6)
        >>> torch.equal(block(current, context), current)  # gamma starts at 0
        True
    """

    def __init__(self, config: STAConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        width = config.channels or channels
        padding = config.kernel // 2
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
        """Refine the current maps by attention to the context.

        Computed in float32 even under autocast, returned in the type of `current`.

        Args:
            current: Maps of the current frame.
            context: Maps of S earlier frames.
            valid: Cells of the context inside the unpadded image; the others are not attended to.

        Raises:
            ValueError: if `value_from` is "current" and the context is not one map of the same
                size.
        """
        with torch.autocast(current.device.type, enabled=False):
            x1 = current.float()
            x0 = context.float()
            values = encode(self.value, self._source(x1, x0))
            previous = encode(self.match, x0)
            queries = F.relu(self.match(x1)).flatten(2)

            rows = None if valid is None else valid.flatten(1)
            refined = fused_attention(previous, queries, values, self.scale, rows)
            return combine(refined.reshape(x1.shape), x1, self.gamma).to(current.dtype)

    def look(
        self,
        current: Float[Tensor, "1 C H W"],
        context: Float[Tensor, "1 S C h w"],
        cells: Int[Tensor, "N"],
        valid: Bool[Tensor, "1 S h w"] | None = None,
    ) -> Float[Tensor, "N S h w"]:
        """Return the attention weights of N current cells, numbered row by row; each sums to 1."""
        with torch.autocast(current.device.type, enabled=False):
            queries = F.relu(self.match(current.float())).flatten(2)[..., cells]  # [1, D, N]
            previous = encode(self.match, context.float())  # [1, D, K]
            rows = None if valid is None else valid.flatten(1)
            weights = correlation(previous, queries, self.scale, rows)  # [1, K, N]
        return weights[0].T.reshape(-1, *context.shape[1:2], *context.shape[3:])

    def _source(self, current: Tensor, context: Tensor) -> Tensor:
        """The maps that Conv2 reads, [B, S, C, H, W]."""
        if self.config.value_from == "previous":
            return context
        if context.shape != current[:, None].shape:
            raise ValueError(
                "value_from='current' pairs each previous cell with one current cell: expected context of shape "
                f"{tuple(current[:, None].shape)}, got {tuple(context.shape)}; set value_from='previous'"
            )
        return current[:, None]


class STAConfig(Config):
    """Settings of the STA block and of how the host uses it, see docs/papers/sta.md.

    Example:
        >>> from tubelet.attention.sta import STAConfig
        >>> block = STAConfig(channels=64, scale="sqrt").build(channels=256)
        >>> block.match.out_channels, block.scale
        (64, 0.125)
    """

    kind: Literal["sta"] = "sta"
    channels: int | None = Field(default=None, ge=1)  # the paper's c1; None: as many as the maps have
    kernel: Literal[1, 3] = 3  # of both convolutions
    gamma_init: float = Field(default=0.0, allow_inf_nan=False)
    scale: Literal["none", "sqrt"] = "none"  # of the logits; sqrt divides by the root of c1
    value_from: Literal["current", "previous"] = "current"  # what Conv2 reads; current is Eq. 2 to the letter
    init: Literal["default", "xavier"] = "default"

    def build(self, channels: int) -> STA:
        """Build the block for maps of this many channels."""
        return STA(self, channels)
