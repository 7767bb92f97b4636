"""Inter-frame recurrent attention: a frame's queries start from those of the frame before.

Source: the IFR paper, Sec. 3.1, Eq. 1-3 and Fig. 3 (docs/papers/ifr.md).

    Attn(Q, K, V; M) = softmax(M * Q K^T / sqrt(d)) V                              (1, `mask_mode` says how M is read)
    U_t, V_t = CrossAttn(Q_i^{t-1}, F_t), CrossAttn(Q_i, F_t)                       (2, both are `QueryLayer.look`)
    Q_i^t = first N rows of SelfAttn([U_t; V_t])                                    (3, t = 1..n, Q_i^0 = Q_i)
    Q_{i+1} = SelfAttn(CrossAttn(Q_i, {Q_i^1, ..., Q_i^n}))                         (Fig. 3)

    Q_i -> clip queries, Q_i^t -> frame queries, F_t -> memory of frame t, N -> Q, n -> T

Only Eq. 2 for Q_i^{t-1} and Eq. 3 depend on the frame before; everything else is computed for all
frames at once.
Letters: B batch, Q queries, T frames, L tokens of a frame, D channels, h heads, d = D / h.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from tubelet.attention.blocks import PixelMemory, QueryLayer, masked_attention, masked_weights, sine_time
from tubelet.core.config import Config


def multiplied_attention(
    queries: Float[Tensor, "B h Q d"],
    keys: Float[Tensor, "B h L d"],
    values: Float[Tensor, "B h L d"],
    allowed: Bool[Tensor, "B 1 Q L"] | None,
) -> Float[Tensor, "B h Q d"]:
    """Compute Eq. 1 to the letter: tokens not allowed have the logit 0, so keep some weight.

    Example:
        >>> from tubelet.attention.ifr import multiplied_attention
        >>> values = torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)
        >>> allowed = torch.tensor([[[[True, False]]]])
        >>> multiplied_attention(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 2, 1), values, allowed)
        tensor([[[[2.]]]])
    """
    return multiplied_weights(queries, keys, allowed) @ values


def multiplied_weights(
    queries: Float[Tensor, "B h Q d"],
    keys: Float[Tensor, "B h L d"],
    allowed: Bool[Tensor, "B 1 Q L"] | None,
) -> Float[Tensor, "B h Q L"]:
    """Compute the weights of `multiplied_attention`.

    Example:
        >>> from tubelet.attention.ifr import multiplied_weights
        >>> allowed = torch.tensor([[[[True, False]]]])
        >>> multiplied_weights(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 2, 1), allowed)
        tensor([[[[0.5000, 0.5000]]]])
    """
    logits = (queries / queries.shape[-1] ** 0.5) @ keys.transpose(-1, -2)
    if allowed is not None:
        logits = torch.where(allowed, logits, 0)  # not a product: a logit may have overflowed
    return logits.softmax(-1)


def frame_queries(
    layer: QueryLayer,
    group: Float[Tensor, "B Q D"],
    position: Float[Tensor, "Q D"],
    others: PixelMemory,
) -> Float[Tensor, "B Q D"]:
    """Compute one frame's queries: Eq. 3, then the feed-forward.

    Args:
        layer: The layer of the frames.
        group: U, the queries from the frame before.
        position: Positions of the queries.
        others: V, the queries from the clip, as tokens.

    Example:
        >>> from tubelet.attention.blocks import QueryLayer
        >>> from tubelet.attention.ifr import frame_queries
        >>> layer = QueryLayer(channels=8, heads=2, feed_forward=16)
        >>> queries, position = torch.rand(1, 3, 8), torch.zeros(3, 8)
        >>> frame_queries(layer, queries, position, layer.tokens(queries, position)).shape
        torch.Size([1, 3, 8])
    """
    tokens = layer.tokens(group, position).and_more(others)
    return layer.feed(layer.mix(group, position, tokens))


def clip_queries(
    layer: QueryLayer,
    clip: Float[Tensor, "B Q D"],
    frames: Float[Tensor, "B T Q D"],
    position: Float[Tensor, "Q D"],
    time: Float[Tensor, "T D"] | None,
    scope: Literal["all", "same_query"],
) -> Float[Tensor, "B Q D"]:
    """Update the clip queries (Fig. 3): cross-attention to the frame queries, then self-attention.

    Args:
        layer: The layer of the clip.
        clip: The clip queries.
        frames: The frame queries.
        position: Positions of the queries.
        time: Codes of the frames, added to the keys; None for none.
        scope: Attend to the frame queries of all queries, or only to those of the same query.

    Example:
        >>> from tubelet.attention.blocks import QueryLayer
        >>> from tubelet.attention.ifr import clip_queries
        >>> layer = QueryLayer(channels=8, heads=2, feed_forward=16)
        >>> clip, frames = torch.rand(1, 3, 8), torch.rand(1, 5, 3, 8)
        >>> clip_queries(layer, clip, frames, torch.zeros(3, 8), time=None, scope="all").shape
        torch.Size([1, 3, 8])
    """
    keys = frames + position
    if time is not None:
        keys = keys + time[:, None]

    if scope == "all":
        memory = layer.cross_attn.project(keys.flatten(1, 2), frames.flatten(1, 2))
        return layer(clip, position, memory)

    # each query attends to its own T frame queries: a batch of B Q small attentions
    own_keys = keys.transpose(1, 2).flatten(0, 1)  # [B Q, T, D]
    own_frames = frames.transpose(1, 2).flatten(0, 1)
    memory = layer.cross_attn.project(own_keys, own_frames)
    attended = layer.cross_attn((clip + position).flatten(0, 1)[:, None], memory)  # [B Q, 1, D]
    clip = layer.cross_attn_layer_norm(clip + attended[:, 0].unflatten(0, clip.shape[:2]))
    return layer.feed(layer.mix(clip, position, layer.tokens(clip, position)))


class LayerWeights(NamedTuple):
    """All attention weights of one inter-frame layer for one clip, averaged over heads."""

    from_before: Tensor  # [T, Q, L]: cross-attention of Q_i^{t-1} to frame t (U)
    from_clip: Tensor  # [T, Q, L]: cross-attention of Q_i to frame t (V)
    mixing: Tensor  # [T, Q, 2 Q]: self-attention of Eq. 3, to U and then V
    over_frames: Tensor  # [Q, T, Q]: cross-attention of the clip queries to the frame queries


class InterFrameLayer(nn.Module):
    """One layer of the recurrent decoder: first the queries of the frames, then those of the clip.

    Example:
        >>> from tubelet.attention.ifr import RecurrentConfig
        >>> layer = RecurrentConfig(heads=2, feed_forward=16).build(channels=8)
        >>> clip, tokens = torch.rand(1, 3, 8), torch.rand(5, 10, 8)  # 5 frames of 10 tokens
        >>> next_clip, frames = layer(clip, torch.zeros(3, 8), tokens, torch.zeros(10, 8))
        >>> next_clip.shape, frames.shape
        (torch.Size([1, 3, 8]), torch.Size([1, 5, 3, 8]))
    """

    def __init__(self, config: RecurrentConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        attend = masked_attention if config.mask_mode == "additive" else multiplied_attention
        frame_width = config.feed_forward if config.ffn == "both" else None
        clip_width = config.feed_forward if config.ffn != "none" else None
        self.frame = QueryLayer(channels, config.heads, frame_width, attend)
        self.clip = QueryLayer(channels, config.heads, clip_width)

    def forward(
        self,
        clip: Float[Tensor, "B Q D"],
        position: Float[Tensor, "Q D"],
        tokens: Float[Tensor, "BT L D"],
        token_position: Float[Tensor, "L D"],
        allowed: Bool[Tensor, "BT Q L"] | None = None,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B T Q D"]]:
        """Return the next clip queries and the frame queries.

        Args:
            clip: The clip queries.
            position: Positions of the queries.
            tokens: Tokens of T frames of each of the B clips.
            token_position: Positions of the tokens.
            allowed: Tokens that each query may attend to; None for all.
        """
        length = len(tokens) // len(clip)
        memory = self.frame.cross_attn.project(tokens + token_position, tokens)
        clip_per_frame = clip.repeat_interleave(length, 0)
        from_clip = self.frame.look(clip_per_frame, position, memory, allowed)  # V of all frames
        others = self.frame.tokens(from_clip, position)

        if self.config.recurrence:
            frames = self._recur(position, length, memory, allowed, from_clip, others)
        else:
            frames = frame_queries(self.frame, from_clip, position, others)
            frames = frames.unflatten(0, (-1, length))

        time = None
        if self.config.temporal_position:
            time = sine_time(length, clip.shape[-1], clip.device)
        scope = self.config.temporal_scope
        return clip_queries(self.clip, clip, frames, position, time, scope), frames

    @torch.no_grad()
    def weights(
        self,
        clip: Float[Tensor, "1 Q D"],
        position: Float[Tensor, "Q D"],
        tokens: Float[Tensor, "T L D"],
        token_position: Float[Tensor, "L D"],
        allowed: Bool[Tensor, "T Q L"] | None = None,
    ) -> LayerWeights:
        """Return the attention weights of one clip; arguments as in `forward`."""
        length = len(tokens)
        frames = self(clip, position, tokens, token_position, allowed)[1]
        memories = self.frame.cross_attn.project(tokens + token_position, tokens).by_frame(length)
        weigh = masked_weights if self.config.mask_mode == "additive" else multiplied_weights

        from_before, from_clip, mixing = [], [], []
        for t in range(length):
            mask = None if allowed is None else allowed[t : t + 1]
            before = frames[:, t - 1] if self.config.recurrence and t > 0 else clip
            from_before.append(self.frame.cross_attn.weights(before + position, memories[t], mask, weigh))
            from_clip.append(self.frame.cross_attn.weights(clip + position, memories[t], mask, weigh))

            group = self.frame.look(before, position, memories[t], mask)
            others = self.frame.look(clip, position, memories[t], mask)
            both = self.frame.tokens(group, position).and_more(self.frame.tokens(others, position))
            mixing.append(self.frame.self_attn.weights(group + position, both))

        over_frames = self._weights_over_frames(clip, frames, position)
        return LayerWeights(torch.cat(from_before), torch.cat(from_clip), torch.cat(mixing), over_frames)

    def _weights_over_frames(self, clip: Tensor, frames: Tensor, position: Tensor) -> Tensor:
        length, queries = frames.shape[1:3]
        keys = frames + position
        if self.config.temporal_position:
            keys = keys + sine_time(length, clip.shape[-1], clip.device)[:, None]

        attention = self.clip.cross_attn
        memory = attention.project(keys.flatten(1, 2), frames.flatten(1, 2))
        allowed = None
        if self.config.temporal_scope == "same_query":
            same = torch.eye(queries, dtype=torch.bool, device=clip.device)
            allowed = same.repeat(1, length)[None]  # [1, Q, T Q]
        weights = attention.weights(clip + position, memory, allowed)
        return weights[0].unflatten(-1, (length, queries))

    def _recur(
        self,
        position: Tensor,
        length: int,
        memory: PixelMemory,
        allowed: Tensor | None,
        from_clip: Tensor,
        others: PixelMemory,
    ) -> Tensor:
        """Compute the frame queries one frame after another, [B, T, Q, D]."""
        frame_memories = memory.by_frame(length)
        frame_others = others.by_frame(length)
        masks = [None] * length if allowed is None else allowed.unflatten(0, (-1, length)).unbind(1)

        # Q^0 are the clip queries, so that U and V are equal in the first frame
        group = from_clip.unflatten(0, (-1, length))[:, 0]
        frames: list[Tensor] = []
        for t in range(length):
            if t > 0:
                group = self.frame.look(frames[-1], position, frame_memories[t], masks[t])
            frames.append(frame_queries(self.frame, group, position, frame_others[t]))
        return torch.stack(frames, 1)


class RecurrentConfig(Config):
    """Settings of an inter-frame layer; docs/papers/ifr.md explains what the paper leaves open.

    Example:
        >>> from tubelet.attention.ifr import RecurrentConfig
        >>> layer = RecurrentConfig(heads=2, feed_forward=16, ffn="clip").build(channels=8)
        >>> layer.frame.has_feed_forward, layer.clip.has_feed_forward
        (False, True)
    """

    heads: int = Field(default=8, ge=1)
    feed_forward: int = Field(default=2048, ge=1)
    ffn: Literal["both", "clip", "none"] = "both"  # after the self-attention of frames and clip
    mask_mode: Literal["additive", "multiplicative"] = "additive"
    recurrence: bool = True  # off: Q^{t-1} is Q_i in every frame
    temporal_scope: Literal["all", "same_query"] = "all"  # frame queries that a clip query attends to
    temporal_position: bool = False  # add a sine code of time to these frame queries

    def build(self, channels: int) -> InterFrameLayer:
        """Build the layer for queries of this many channels."""
        return InterFrameLayer(self, channels)
