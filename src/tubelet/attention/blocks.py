"""Parts of query decoders: masked multi-head attention, post-norm query layer, sine positions.

Sources: Vaswani et al. 2017 (attention, sine positions); Cheng et al., Masked-attention Mask
Transformer, CVPR 2022.

    Attention(Q, K, V) = softmax(M + Q K^T / sqrt(d)) V     M = 0 where a token is allowed, -inf where it is not
    X <- norm(X + Attention(X + P, F + P_F, F));  X <- norm(X + Attention(X + P, X + P, X));  X <- norm(X + FFN(X))

Letters: B batch, Q queries, L tokens, D channels, h heads, d = D / h channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
Weigh = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def masked_attention(
    queries: Float[Tensor, "B h Q d"],
    keys: Float[Tensor, "B h L d"],
    values: Float[Tensor, "B h L d"],
    allowed: Bool[Tensor, "B 1 Q L"] | None,
) -> Float[Tensor, "B h Q d"]:
    """Compute softmax(M + Q K^T / sqrt(d)) V: a token that is not allowed gets weight 0.

    Each query needs at least one allowed token, see `unblock`.

    Example:
        >>> from tubelet.attention.blocks import masked_attention
        >>> values = torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)
        >>> masked_attention(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 2, 1), values, allowed=None)
        tensor([[[[2.]]]])
    """
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed)


def masked_weights(
    queries: Float[Tensor, "B h Q d"],
    keys: Float[Tensor, "B h L d"],
    allowed: Bool[Tensor, "B 1 Q L"] | None,
) -> Float[Tensor, "B h Q L"]:
    """Compute the weights of `masked_attention`, to show them: softmax(M + Q K^T / sqrt(d)).

    Example:
        >>> from tubelet.attention.blocks import masked_weights
        >>> allowed = torch.tensor([[[[True, False]]]])
        >>> masked_weights(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 2, 1), allowed)
        tensor([[[[1., 0.]]]])
    """
    logits = (queries / queries.shape[-1] ** 0.5) @ keys.transpose(-1, -2)
    if allowed is not None:
        logits = logits.masked_fill(~allowed, float("-inf"))
    return logits.softmax(-1)


def unblock(allowed: Bool[Tensor, "*B Q L"]) -> Bool[Tensor, "*B Q L"]:
    """Allow every token to queries that have no allowed token, whose softmax would be NaN.

    Example:
        >>> from tubelet.attention.blocks import unblock
        >>> unblock(torch.tensor([[True, False], [False, False]]))
        tensor([[ True, False],
                [ True,  True]])
    """
    return allowed | ~allowed.any(-1, keepdim=True)


def sine_code(
    position: Float[Tensor, "*P"],
    channels: int,
    temperature: float = 1e4,
) -> Float[Tensor, "*P {channels}"]:
    """Encode positions in radians: sin(p / temperature^(2i / C)) at channel 2i, cos at 2i + 1.

    Example:
        >>> from tubelet.attention.blocks import sine_code
        >>> sine_code(torch.zeros(1), channels=4)
        tensor([[0., 1., 0., 1.]])
    """
    even = torch.arange(0, channels, 2, device=position.device, dtype=torch.float32)
    angle = position[..., None] / temperature ** (even / channels)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)[..., :channels]


def turn(cells: int, device: torch.device) -> Float[Tensor, "{cells}"]:
    """Return the positions of n cells on an axis: 1/n, 2/n, ..., 1 of 2 pi.

    Example:
        >>> from tubelet.attention.blocks import turn
        >>> turn(2, torch.device("cpu"))
        tensor([3.1416, 6.2832])
    """
    cell = torch.arange(1, cells + 1, device=device, dtype=torch.float32)
    return cell / (cells + 1e-6) * (2 * math.pi)


def sine_position(
    height: int,
    width: int,
    channels: int,
    device: torch.device,
) -> Float[Tensor, "H W {channels}"]:
    """Encode the cells of a map: the row in the first half of the channels, then the column.

    Example:
        >>> from tubelet.attention.blocks import sine_position
        >>> sine_position(4, 6, channels=8, device=torch.device("cpu")).shape
        torch.Size([4, 6, 8])
    """
    rows = sine_code(turn(height, device), channels // 2)[:, None].expand(-1, width, -1)
    columns = sine_code(turn(width, device), channels - channels // 2)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], -1)


def sine_time(
    length: int,
    channels: int,
    device: torch.device,
) -> Float[Tensor, "{length} {channels}"]:
    """Encode the frames of a clip, at 1/n ... 1 of 2 pi: codes depend on the clip's length.

    Example:
        >>> from tubelet.attention.blocks import sine_time
        >>> sine_time(3, channels=8, device=torch.device("cpu")).shape
        torch.Size([3, 8])
    """
    return sine_code(turn(length, device), channels)


class PixelMemory(NamedTuple):
    """Projected keys and values that queries attend to.

    Example:
        >>> from tubelet.attention.blocks import PixelMemory
        >>> memory = PixelMemory(keys=torch.zeros(2, 4, 10, 8), values=torch.zeros(2, 4, 10, 8))
        >>> memory.and_more(memory).keys.shape
        torch.Size([2, 4, 20, 8])
    """

    keys: Tensor  # [B, h, L, d]
    values: Tensor  # [B, h, L, d]

    def and_more(self, other: PixelMemory) -> PixelMemory:
        """Concatenate the tokens of two memories."""
        keys = torch.cat([self.keys, other.keys], 2)
        values = torch.cat([self.values, other.values], 2)
        return PixelMemory(keys, values)

    def by_frame(self, length: int) -> list[PixelMemory]:
        """Split a memory of T = `length` frames, [B T, ...], into one per frame, [B, ...]."""
        keys = self.keys.unflatten(0, (-1, length)).unbind(1)
        values = self.values.unflatten(0, (-1, length)).unbind(1)
        return [PixelMemory(*of_frame) for of_frame in zip(keys, values, strict=True)]


class MultiHeadAttention(nn.Module):
    """Multi-head attention in two steps, `project` and `forward`.

    So tokens are projected once for many queries.

    Example:
        >>> from tubelet.attention.blocks import MultiHeadAttention
        >>> attention = MultiHeadAttention(channels=8, heads=2)
        >>> tokens = torch.rand(1, 10, 8)
        >>> memory = attention.project(tokens, tokens)
        >>> attention(torch.rand(1, 3, 8), memory).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, channels: int, heads: int, attend: Attend = masked_attention) -> None:
        super().__init__()
        self.heads = heads
        self.attend = attend
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def project(self, keys: Float[Tensor, "B L D"], values: Float[Tensor, "B L D"]) -> PixelMemory:
        """Project tokens to keys and values; add positions to `keys` only."""
        return PixelMemory(self._split(self.k_proj(keys)), self._split(self.v_proj(values)))

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        memory: PixelMemory,
        allowed: Bool[Tensor, "B Q L"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """Attend to the allowed tokens of the memory, the same for all heads."""
        mask = None if allowed is None else allowed[:, None]
        attended = self.attend(self._split(self.q_proj(queries)), memory.keys, memory.values, mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def weights(
        self,
        queries: Float[Tensor, "B Q D"],
        memory: PixelMemory,
        allowed: Bool[Tensor, "B Q L"] | None = None,
        weigh: Weigh = masked_weights,
    ) -> Float[Tensor, "B Q L"]:
        """Return the attention weights, averaged over heads; `weigh` must go with `attend`."""
        mask = None if allowed is None else allowed[:, None]
        return weigh(self._split(self.q_proj(queries)), memory.keys, mask).mean(1)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, h, L, d]


class QueryLayer(nn.Module):
    """Cross-attention, self-attention and feed-forward, each added to its input and normalised.

    The steps `look`, `mix` and `feed` can also be called one by one. `feed_forward` is the hidden
    width of the last step; None leaves it out.

    Example:
        >>> from tubelet.attention.blocks import QueryLayer
        >>> layer = QueryLayer(channels=8, heads=2, feed_forward=16)
        >>> tokens = torch.rand(1, 10, 8)
        >>> memory = layer.cross_attn.project(tokens, tokens)
        >>> layer(torch.rand(1, 3, 8), torch.zeros(3, 8), memory).shape
        torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        feed_forward: int | None,
        attend: Attend = masked_attention,
    ) -> None:
        super().__init__()
        self.cross_attn = MultiHeadAttention(channels, heads, attend)
        self.cross_attn_layer_norm = nn.LayerNorm(channels)
        self.self_attn = MultiHeadAttention(channels, heads)
        self.self_attn_layer_norm = nn.LayerNorm(channels)

        self.has_feed_forward = feed_forward is not None
        if feed_forward is not None:
            self.fc1 = nn.Linear(channels, feed_forward)
            self.fc2 = nn.Linear(feed_forward, channels)
            self.final_layer_norm = nn.LayerNorm(channels)
            for linear in (self.fc1, self.fc2):
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        position: Float[Tensor, "Q D"],
        memory: PixelMemory,
        allowed: Bool[Tensor, "B Q L"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        queries = self.look(queries, position, memory, allowed)
        queries = self.mix(queries, position, self.tokens(queries, position))
        return self.feed(queries)

    def look(
        self,
        queries: Float[Tensor, "B Q D"],
        position: Float[Tensor, "Q D"],
        memory: PixelMemory,
        allowed: Bool[Tensor, "B Q L"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """Apply cross-attention to tokens that `cross_attn.project` projected."""
        attended = self.cross_attn(queries + position, memory, allowed)
        return self.cross_attn_layer_norm(queries + attended)

    def tokens(self, queries: Float[Tensor, "B Q D"], position: Float[Tensor, "Q D"]) -> PixelMemory:
        """Project the queries to the tokens of self-attention."""
        return self.self_attn.project(queries + position, queries)

    def mix(
        self,
        queries: Float[Tensor, "B Q D"],
        position: Float[Tensor, "Q D"],
        tokens: PixelMemory,
    ) -> Float[Tensor, "B Q D"]:
        """Apply self-attention to `tokens`."""
        attended = self.self_attn(queries + position, tokens)
        return self.self_attn_layer_norm(queries + attended)

    def feed(self, queries: Float[Tensor, "B Q D"]) -> Float[Tensor, "B Q D"]:
        """Apply the feed-forward network to each query; without one, return the queries."""
        if not self.has_feed_forward:
            return queries
        return self.final_layer_norm(queries + self.fc2(F.relu(self.fc1(queries))))
