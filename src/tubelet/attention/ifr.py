"""Inter-frame recurrent attention: queries of a frame know what the queries of the frame before it found.

Source: the IFR paper, Sec. 3.1, Eq. 1-3 and Fig. 3 (docs/papers/ifr.md).

    Attn(Q, K, V; M) = softmax(M * Q K^T / sqrt(d)) V                              (1, `mask_mode` tells how M is read)
    U_t, V_t = CrossAttn(Q_i^{t-1}, F_t), CrossAttn(Q_i, F_t)                       (2, both are `QueryLayer.look`)
    Q_i^t = first N rows of SelfAttn([U_t; V_t])                                    (3, t = 1..n, Q_i^0 = Q_i)
    Q_{i+1} = SelfAttn(CrossAttn(Q_i, {Q_i^1, ..., Q_i^n}))                         (Fig. 3)

    Q_i -> clip queries, Q_i^t -> frame queries, F_t -> memory of frame t, N -> Q, n -> T

Only Eq. 2 for Q_i^{t-1} and Eq. 3 must wait for the frame before; everything else is done for all frames at once.
Letters: B batch, Q queries, T frames, L tokens of a frame, D channels, h heads, d = D / h.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from tubelet.attention.blocks import PixelMemory, QueryLayer, masked_attention, sine_time
from tubelet.core.config import Config


def multiplied_attention(
    queries: Float[Tensor, "B h Q d"],
    keys: Float[Tensor, "B h L d"],
    values: Float[Tensor, "B h L d"],
    allowed: Bool[Tensor, "B 1 Q L"] | None,
) -> Float[Tensor, "B h Q d"]:
    """Eq. 1 to the letter: a token that is not allowed has the logit 0 and so keeps some weight."""
    logits = (queries / queries.shape[-1] ** 0.5) @ keys.transpose(-1, -2)
    if allowed is not None:
        logits = torch.where(allowed, logits, 0)  # the product, also where a logit has overflowed
    return logits.softmax(-1) @ values


def frame_queries(
    layer: QueryLayer, group: Float[Tensor, "B Q D"], position: Float[Tensor, "Q D"], others: PixelMemory
) -> Float[Tensor, "B Q D"]:
    """Eq. 3: the first N rows of self-attention over both groups; `others` is V as tokens. Then the feed-forward."""
    return layer.feed(layer.mix(group, position, layer.tokens(group, position).and_more(others)))


def clip_queries(
    layer: QueryLayer,
    clip: Float[Tensor, "B Q D"],
    frames: Float[Tensor, "B T Q D"],
    position: Float[Tensor, "Q D"],
    time: Float[Tensor, "T D"] | None,
    scope: Literal["all", "same_query"],
) -> Float[Tensor, "B Q D"]:
    """Fig. 3: clip queries gather from the frame queries, of all queries or of their own, then from one another."""
    keys = frames + position
    if time is not None:
        keys = keys + time[:, None]
    if scope == "all":
        memory = layer.cross_attn.project(keys.flatten(1, 2), frames.flatten(1, 2))
        return layer(clip, position, memory)
    # one query and its T frame queries are a small attention of their own
    memory = layer.cross_attn.project(*(x.transpose(1, 2).flatten(0, 1) for x in (keys, frames)))  # [B Q, T, D]
    gathered = layer.cross_attn((clip + position).flatten(0, 1)[:, None], memory)[:, 0].unflatten(0, clip.shape[:2])
    clip = layer.cross_attn_layer_norm(clip + gathered)
    return layer.feed(layer.mix(clip, position, layer.tokens(clip, position)))


class InterFrameLayer(nn.Module):
    """One layer of the recurrent decoder: `frame` walks through the frames, `clip` gathers what they found."""

    def __init__(self, config: RecurrentConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        attend = masked_attention if config.mask_mode == "additive" else multiplied_attention
        width = config.feed_forward
        self.frame = QueryLayer(channels, config.heads, width if config.ffn == "both" else None, attend)
        self.clip = QueryLayer(channels, config.heads, width if config.ffn != "none" else None)

    def forward(
        self,
        clip: Float[Tensor, "B Q D"],
        position: Float[Tensor, "Q D"],
        tokens: Float[Tensor, "BT L D"],
        token_position: Float[Tensor, "L D"],
        allowed: Bool[Tensor, "BT Q L"] | None = None,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B T Q D"]]:
        """The next clip queries, and the frame queries; `tokens` are those of T frames of B clips."""
        length = len(tokens) // len(clip)
        memory = self.frame.cross_attn.project(tokens + token_position, tokens)
        found = self.frame.look(clip.repeat_interleave(length, 0), position, memory, allowed)  # V of all frames
        others = self.frame.tokens(found, position)
        if self.config.recurrence:
            frames = self._walk(clip, position, length, memory, allowed, found, others)
        else:
            frames = frame_queries(self.frame, found, position, others).unflatten(0, (-1, length))
        time = sine_time(length, clip.shape[-1], clip.device) if self.config.temporal_position else None
        return clip_queries(self.clip, clip, frames, position, time, self.config.temporal_scope), frames

    def _walk(
        self,
        clip: Tensor,
        position: Tensor,
        length: int,
        memory: PixelMemory,
        allowed: Tensor | None,
        found: Tensor,
        others: PixelMemory,
    ) -> Tensor:
        """Frame queries [B, T, Q, D], each from those of the frame before."""
        looked, named = memory.by_frame(length), others.by_frame(length)
        masks = [None] * length if allowed is None else allowed.unflatten(0, (-1, length)).unbind(1)
        group = found.unflatten(0, (-1, length))[:, 0]  # Q^0 is the clip's: both groups are one in the first frame
        walked: list[Tensor] = []
        for t in range(length):
            if t > 0:
                group = self.frame.look(walked[-1], position, looked[t], masks[t])
            walked.append(frame_queries(self.frame, group, position, named[t]))
        return torch.stack(walked, 1)


class RecurrentConfig(Config):
    """A layer as Sec. 3.1 has it; where the paper is silent, docs/papers/ifr.md tells our reading."""

    heads: int = Field(default=8, ge=1)
    feed_forward: int = Field(default=2048, ge=1)
    ffn: Literal["both", "clip", "none"] = "both"  # after the frames' self-attention and the clip's
    mask_mode: Literal["additive", "multiplicative"] = "additive"
    recurrence: bool = True  # off: Q^{t-1} is Q_i in every frame
    temporal_scope: Literal["all", "same_query"] = "all"  # frame queries that a clip query gathers from
    temporal_position: bool = False  # a sine code of time on the frame queries that it gathers from

    def build(self, channels: int) -> InterFrameLayer:
        return InterFrameLayer(self, channels)
