"""What query decoders are made of: multi-head attention with a mask, the post-norm query layer, sine positions.

Sources: Vaswani et al. 2017 (attention, sine positions); Cheng et al., Masked-attention Mask Transformer, CVPR 2022.

    Attention(Q, K, V) = softmax(M + Q K^T / sqrt(d)) V     M = 0 where a token may be looked at, -inf where not
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


def masked_attention(
    queries: Float[Tensor, "B h Q d"],
    keys: Float[Tensor, "B h L d"],
    values: Float[Tensor, "B h L d"],
    allowed: Bool[Tensor, "B 1 Q L"] | None,
) -> Float[Tensor, "B h Q d"]:
    """softmax(M + Q K^T / sqrt(d)) V; a token that is not allowed has weight 0. A row needs one allowed token."""
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed)


def unblock(allowed: Bool[Tensor, "*B Q L"]) -> Bool[Tensor, "*B Q L"]:
    """Rows without any allowed token look at every token: a softmax over nothing is not a number."""
    return allowed | ~allowed.any(-1, keepdim=True)


def sine_code(position: Float[Tensor, "*P"], channels: int, temperature: float = 1e4) -> Float[Tensor, "*P {channels}"]:
    """sin(p / temperature^(2i/C)) at channel 2i, cos at 2i + 1."""
    even = torch.arange(0, channels, 2, device=position.device, dtype=torch.float32)
    angle = position[..., None] / temperature ** (even / channels)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)[..., :channels]


def turn(cells: int, device: torch.device) -> Float[Tensor, "{cells}"]:
    """The cells of an axis at 1/n, 2/n, ..., 1 of a full turn."""
    return torch.arange(1, cells + 1, device=device, dtype=torch.float32) / (cells + 1e-6) * (2 * math.pi)


def sine_position(height: int, width: int, channels: int, device: torch.device) -> Float[Tensor, "H W {channels}"]:
    """The 2-D code of a map: the first half of the channels tells the row, the second the column."""
    rows = sine_code(turn(height, device), channels // 2)[:, None].expand(-1, width, -1)
    columns = sine_code(turn(width, device), channels - channels // 2)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], -1)


def sine_time(length: int, channels: int, device: torch.device) -> Float[Tensor, "{length} {channels}"]:
    """The code of each frame of a clip, from 1/n to a full turn: it depends on the clip's length."""
    return sine_code(turn(length, device), channels)


class PixelMemory(NamedTuple):
    """Tokens ready to be looked at."""

    keys: Tensor  # [B, h, L, d]
    values: Tensor  # [B, h, L, d]

    def and_more(self, other: PixelMemory) -> PixelMemory:
        """Both one's tokens."""
        return PixelMemory(torch.cat([self.keys, other.keys], 2), torch.cat([self.values, other.values], 2))

    def by_frame(self, length: int) -> list[PixelMemory]:
        """That of `length` frames of every clip, [B T, ...], one frame at a time, [B, ...] each."""
        parts = (x.unflatten(0, (-1, length)).unbind(1) for x in self)
        return [PixelMemory(*part) for part in zip(*parts, strict=True)]


class MultiHeadAttention(nn.Module):
    """Attention in two steps, so that what many queries share is projected once: `project`, then `forward`."""

    def __init__(self, channels: int, heads: int, attend: Attend = masked_attention) -> None:
        super().__init__()
        self.heads, self.attend = heads, attend
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(channels, channels) for _ in range(4))
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def project(self, keys: Float[Tensor, "B L D"], values: Float[Tensor, "B L D"]) -> PixelMemory:
        """Keys and values of the tokens; a position belongs to the keys alone."""
        return PixelMemory(self._split(self.k_proj(keys)), self._split(self.v_proj(values)))

    def forward(
        self, queries: Float[Tensor, "B Q D"], memory: PixelMemory, allowed: Bool[Tensor, "B Q L"] | None = None
    ) -> Float[Tensor, "B Q D"]:
        """What each query gathers; `allowed` is the same for all heads."""
        mask = None if allowed is None else allowed[:, None]
        gathered = self.attend(self._split(self.q_proj(queries)), memory.keys, memory.values, mask)
        return self.out_proj(gathered.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, h, L, d]


class QueryLayer(nn.Module):
    """Cross-attention, self-attention, feed-forward; each is added to its input, then normalised.

    `feed_forward` is the width of the last one, None leaves it out. The three steps can be taken one by one.
    """

    def __init__(self, channels: int, heads: int, feed_forward: int | None, attend: Attend = masked_attention) -> None:
        super().__init__()
        self.cross_attn = MultiHeadAttention(channels, heads, attend)
        self.cross_attn_layer_norm = nn.LayerNorm(channels)
        self.self_attn = MultiHeadAttention(channels, heads)
        self.self_attn_layer_norm = nn.LayerNorm(channels)
        self.fed = feed_forward is not None
        if feed_forward is not None:
            self.fc1, self.fc2 = nn.Linear(channels, feed_forward), nn.Linear(feed_forward, channels)
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
        return self.feed(self.mix(queries, position, self.tokens(queries, position)))

    def look(
        self,
        queries: Float[Tensor, "B Q D"],
        position: Float[Tensor, "Q D"],
        memory: PixelMemory,
        allowed: Bool[Tensor, "B Q L"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """Cross-attention: queries gather from tokens that `cross_attn.project` made."""
        return self.cross_attn_layer_norm(queries + self.cross_attn(queries + position, memory, allowed))

    def tokens(self, queries: Float[Tensor, "B Q D"], position: Float[Tensor, "Q D"]) -> PixelMemory:
        """Queries as tokens of self-attention."""
        return self.self_attn.project(queries + position, queries)

    def mix(
        self, queries: Float[Tensor, "B Q D"], position: Float[Tensor, "Q D"], tokens: PixelMemory
    ) -> Float[Tensor, "B Q D"]:
        """Self-attention: queries gather from one another."""
        return self.self_attn_layer_norm(queries + self.self_attn(queries + position, tokens))

    def feed(self, queries: Float[Tensor, "B Q D"]) -> Float[Tensor, "B Q D"]:
        """The feed-forward network, each query on its own."""
        if not self.fed:
            return queries
        return self.final_layer_norm(queries + self.fc2(F.relu(self.fc1(queries))))
