"""The attentions of the tag-based system: all frames read one frame, tags do the same, and a frame reads itself.

Source: Tag-based attention guided bottom-up approach for video instance segmentation, III-B, III-C, Fig. 2-4; the paper
draws them and prints no formula, so these are our reading (docs/papers/tags.md).

    Fig. 2, 3   u_t(p) = 1/T  sum_tau  sum_k softmax_k( q_tau(p) . k_t(k) / sqrt(D) ) v_t(k)   [ + R f_t(p) ]
    Fig. 4      v_t(p) = gamma  sum_k softmax_k( q_t(p) . k_t(k) ) v_t(k) + f_t(p)

    q_tau, k_t, v_t -> queries, keys, values    linear maps of the features f, or of the tags' features
    p, k            -> positions                P = H W cells of one frame
    tau, t          -> frames                   T of a clip; tau asks, t is read
    R               -> `residual`               a linear map, so that a cell keeps what it knows of its own place
    gamma           -> `gamma`                  starts at 0

Shapes: features [B, C, T, H, W], as 3-D convolutions have them; within, tokens [B, T, P, C].
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tubelet.core.config import Config

AT_ONCE = 8  # frames that ask together: what they hold stays near the processor


def read_each_frame(
    queries: Float[Tensor, "B T P D"], keys: Float[Tensor, "B T P D"], values: Float[Tensor, "B T P C"]
) -> Float[Tensor, "B T P C"]:
    """Fig. 2: what all frames, on average, read from each frame.

    The literal form holds T x T P x P weights; this one a few frames' P x P at a time, in training too, where they are
    computed again on the way back. The product with the values is linear, so the mean over the frames that ask is taken
    of the weights before it, which saves all but one of T products and changes nothing else.
    """
    asking = queries * queries.shape[-1] ** -0.5
    read = [mean_weights(asking, key) @ value for key, value in zip(keys.unbind(1), values.unbind(1), strict=True)]
    return torch.stack(read, 1)


def mean_weights(asking: Float[Tensor, "B T P D"], keys: Float[Tensor, "B P D"]) -> Float[Tensor, "B P P"]:
    """How much a position, averaged over the frames that ask, reads of each position of one frame; rows sum to 1."""
    held = torch.is_grad_enabled() and (asking.requires_grad or keys.requires_grad)
    weigh = partial(checkpoint, _sum_weights, use_reentrant=False) if held else _sum_weights
    total: Tensor = sum((weigh(some, keys) for some in asking.split(AT_ONCE, 1)), asking.new_zeros(()))
    return total / asking.shape[1]


def _sum_weights(asking: Tensor, keys: Tensor) -> Tensor:
    weights = (asking.flatten(1, 2) @ keys.transpose(1, 2)).softmax(-1)  # [B, AT_ONCE P, P]
    return weights.unflatten(1, asking.shape[1:3]).sum(1)


def read_itself(
    queries: Float[Tensor, "B T P D"], keys: Float[Tensor, "B T P D"], values: Float[Tensor, "B T P C"]
) -> Float[Tensor, "B T P C"]:
    """Fig. 4: every cell of a frame reads the cells of its own frame; the products are not scaled."""
    return F.scaled_dot_product_attention(queries, keys, values, scale=1.0)


def coordinates(features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B 2 T H W"]:
    """The location embedding: x and y of each cell's middle, from -1 at the first one to 1 at the last."""
    batch, _, frames, height, width = features.shape
    y, x = (torch.linspace(-1, 1, n, device=features.device, dtype=features.dtype) for n in (height, width))
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    return grid[None, :, None].expand(batch, 2, frames, height, width)


def normalise(tags: Float[Tensor, "B D T h w"]) -> Float[Tensor, "B D T h w"]:
    """Tags of each clip with mean 0 and variance 1, for they mean nothing but by their differences.

    No gradient flows through mean and variance: that would only say that all tags may move together.
    """
    place = tags.detach().flatten(2)
    mean, deviation = place.mean(-1)[..., None, None, None], place.std(-1, correction=0)[..., None, None, None]
    return (tags - mean) / (deviation + 1e-5)


class FrameReading(nn.Module):
    """Spatio-temporal attention (III-B, Fig. 2) and, with weights of its own, tag-based attention (III-C, Fig. 3)."""

    def __init__(self, config: FrameReadingConfig, inside: int, outside: int) -> None:
        super().__init__()
        self.query = nn.Linear(inside, config.keys)
        self.key = nn.Linear(inside, config.keys)
        self.value = nn.Linear(inside, outside)
        self.residual = nn.Linear(inside, outside) if config.residual else None

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B E T H W"]:
        """As many channels as were asked for, at the same places."""
        tokens = _tokens(features)
        read = read_each_frame(self.query(tokens), self.key(tokens), self.value(tokens))
        if self.residual is not None:
            read = read + self.residual(tokens)
        return _features(read, features)


class TagFeatures(nn.Module):
    """Tags, eight times finer than the features, brought to their grid: what tag-based attention works on."""

    def __init__(self, dimensions: int, channels: int) -> None:
        super().__init__()
        self.shrink = nn.Conv3d(dimensions, channels, (1, 8, 8), (1, 8, 8))

    def forward(self, tags: Float[Tensor, "B D T h w"]) -> Float[Tensor, "B C T H W"]:
        """A non-negative vector for each 8 x 8 tags."""
        shrunk: Tensor = self.shrink(normalise(tags))
        return shrunk.relu()


class SelfReading(nn.Module):
    """Self-attention within each frame (Fig. 4); at the start it changes nothing."""

    def __init__(self, config: SelfReadingConfig, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, config.keys)
        self.key = nn.Linear(channels, config.keys)
        self.value = nn.Linear(channels, channels)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        """The features, and gamma times what they read."""
        tokens = _tokens(features)
        read = read_itself(self.query(tokens), self.key(tokens), self.value(tokens))
        return _features(self.gamma * read + tokens, features)


def _tokens(features: Tensor) -> Tensor:
    return features.permute(0, 2, 3, 4, 1).flatten(2, 3)  # [B, T, P, C]


def _features(tokens: Tensor, like: Tensor) -> Tensor:
    return tokens.unflatten(2, like.shape[-2:]).permute(0, 4, 1, 2, 3)  # [B, C, T, H, W]


class FrameReadingConfig(Config):
    """Of spatio-temporal and tag-based attention; the paper gives neither width."""

    keys: int = Field(default=64, ge=1)  # D
    residual: bool = True  # without it, a cell's own features are read only through attention

    def build(self, inside: int, outside: int) -> FrameReading:
        return FrameReading(self, inside, outside)


class SelfReadingConfig(Config):
    """Of self-attention within frames."""

    keys: int = Field(default=32, ge=1)  # D

    def build(self, channels: int) -> SelfReading:
        return SelfReading(self, channels)
