"""The attentions of the tag-based system: from all frames to each frame, and within a frame.

Source: Tag-based attention guided bottom-up approach for video instance segmentation, III-B, III-C,
Fig. 2-4; the paper draws them and prints no formula, so these are our reading
(docs/papers/tags.md).

    Fig. 2, 3   u_t(p) = 1/T  sum_tau  sum_k softmax_k( q_tau(p) . k_t(k) / sqrt(D) ) v_t(k)   [ + R f_t(p) ]
    Fig. 4      v_t(p) = gamma  sum_k softmax_k( q_t(p) . k_t(k) ) v_t(k) + f_t(p)

    q_tau, k_t, v_t -> queries, keys, values    linear maps of the features f, or of the tags' features
    p, k            -> positions                P = H W cells of one frame
    tau, t          -> frames                   T of a clip; queries of tau, keys and values of t
    R               -> `residual`               a linear map, so that a cell keeps its own features
    gamma           -> `gamma`                  starts at 0

Shapes: features [B, C, T, H, W], as 3-D convolutions have them; within, tokens [B, T, P, C].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tubelet.core.config import Config

AT_ONCE = 8  # frames of queries per product: their weights stay in the processor's cache


def read_each_frame(
    queries: Float[Tensor, "B T P D"],
    keys: Float[Tensor, "B T P D"],
    values: Float[Tensor, "B T P C"],
) -> Float[Tensor, "B T P C"]:
    """Attend to each frame with the queries of all frames, and average over these: Fig. 2.

    The literal form makes T x T P x P weights. This one makes a few frames' P x P at a time, in
    training too, where the backward pass computes them again. The product with the values is
    linear, so the weights are averaged over the queries' frames before it: one product instead of
    T, with the same result.

    Example:
        >>> from tubelet.attention.tags import read_each_frame
        >>> queries, values = torch.zeros(1, 2, 3, 8), torch.arange(6.0).view(1, 2, 3, 1)
        >>> read_each_frame(queries, queries, values)[0, :, 0, 0]  # the mean of each frame
        tensor([1., 4.])
    """
    scaled = queries * queries.shape[-1] ** -0.5
    frames = []
    for key, value in zip(keys.unbind(1), values.unbind(1), strict=True):
        frames.append(mean_weights(scaled, key) @ value)
    return torch.stack(frames, 1)


def mean_weights(
    queries: Float[Tensor, "B T P D"],
    keys: Float[Tensor, "B P D"],
) -> Float[Tensor, "B P P"]:
    """Compute the attention weights to one frame, averaged over the queries' frames.

    Rows sum to 1.

    Example:
        >>> from tubelet.attention.tags import mean_weights
        >>> mean_weights(torch.zeros(1, 3, 2, 8), torch.rand(1, 2, 8))
        tensor([[[0.5000, 0.5000],
                 [0.5000, 0.5000]]])
    """
    needs_gradient = torch.is_grad_enabled() and (queries.requires_grad or keys.requires_grad)
    total = queries.new_zeros(())
    for frames in queries.split(AT_ONCE, 1):
        if needs_gradient:
            total = total + checkpoint(_sum_weights, frames, keys, use_reentrant=False)
        else:
            total = total + _sum_weights(frames, keys)
    return total / queries.shape[1]


def _sum_weights(queries: Tensor, keys: Tensor) -> Tensor:
    """Weights summed over the frames of the queries, [B, P, P]."""
    weights = (queries.flatten(1, 2) @ keys.transpose(1, 2)).softmax(-1)  # [B, AT_ONCE P, P]
    return weights.unflatten(1, queries.shape[1:3]).sum(1)


def read_itself(
    queries: Float[Tensor, "B T P D"],
    keys: Float[Tensor, "B T P D"],
    values: Float[Tensor, "B T P C"],
) -> Float[Tensor, "B T P C"]:
    """Attend to the cells of the same frame, with unscaled logits: Fig. 4.

    Example:
        >>> from tubelet.attention.tags import read_itself
        >>> queries, values = torch.zeros(1, 2, 3, 8), torch.arange(6.0).view(1, 2, 3, 1)
        >>> read_itself(queries, queries, values)[0, :, 0, 0]
        tensor([1., 4.])
    """
    return F.scaled_dot_product_attention(queries, keys, values, scale=1.0)


def coordinates(features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B 2 T H W"]:
    """Return the location embedding: x and y of each cell, from -1 (first) to 1 (last).

    Example:
        >>> from tubelet.attention.tags import coordinates
        >>> coordinates(torch.zeros(1, 8, 1, 2, 3))[0, 0, 0]  # x
        tensor([[-1.,  0.,  1.],
                [-1.,  0.,  1.]])
    """
    batch, _, frames, height, width = features.shape
    y = torch.linspace(-1, 1, height, device=features.device, dtype=features.dtype)
    x = torch.linspace(-1, 1, width, device=features.device, dtype=features.dtype)
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    return grid[None, :, None].expand(batch, 2, frames, height, width)


def normalise(tags: Float[Tensor, "B D T h w"]) -> Float[Tensor, "B D T h w"]:
    """Normalise the tags of each clip to mean 0 and variance 1.

    Only differences of tags have a meaning. Mean and variance are constants to the gradient.

    Example:
        >>> from tubelet.attention.tags import normalise
        >>> normalise(torch.tensor([1.0, 3.0]).view(1, 1, 1, 1, 2)).flatten()
        tensor([-1.0000,  1.0000])
    """
    values = tags.detach().flatten(2)
    mean = values.mean(-1)[..., None, None, None]
    deviation = values.std(-1, correction=0)[..., None, None, None]
    return (tags - mean) / (deviation + 1e-5)


class FrameReading(nn.Module):
    """Spatio-temporal attention (Fig. 2) and, as a second module, tag-based attention (Fig. 3).

    Example:
        >>> from tubelet.attention.tags import FrameReadingConfig
        >>> module = FrameReadingConfig(keys=4).build(inside=8, outside=16)
        >>> module(torch.rand(1, 8, 2, 3, 5)).shape
        torch.Size([1, 16, 2, 3, 5])
    """

    def __init__(self, config: FrameReadingConfig, inside: int, outside: int) -> None:
        super().__init__()
        self.query = nn.Linear(inside, config.keys)
        self.key = nn.Linear(inside, config.keys)
        self.value = nn.Linear(inside, outside)
        self.residual = nn.Linear(inside, outside) if config.residual else None

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B E T H W"]:
        """Map features of C = `inside` channels to E = `outside` channels."""
        tokens = _tokens(features)
        attended = read_each_frame(self.query(tokens), self.key(tokens), self.value(tokens))
        if self.residual is not None:
            attended = attended + self.residual(tokens)
        return _features(attended, features)

    def weights(self, features: Float[Tensor, "1 C T H W"], cell: int) -> Float[Tensor, "T T H W"]:
        """Return the weights of a cell's query in each frame (first T) to the cells of each frame."""
        tokens = _tokens(features)
        queries = self.query(tokens)[0, :, cell]  # [T, D]
        keys = self.key(tokens)[0]  # [T, P, D]
        logits = torch.einsum("qd,tpd->qtp", queries * queries.shape[-1] ** -0.5, keys)
        return logits.softmax(-1).unflatten(-1, features.shape[-2:])


class TagFeatures(nn.Module):
    """Features of the tags, at an eighth of their height and width, for tag-based attention.

    Example:
        >>> from tubelet.attention.tags import TagFeatures
        >>> TagFeatures(dimensions=2, channels=4)(torch.rand(1, 2, 3, 16, 24)).shape
        torch.Size([1, 4, 3, 2, 3])
    """

    def __init__(self, dimensions: int, channels: int) -> None:
        super().__init__()
        self.shrink = nn.Conv3d(dimensions, channels, (1, 8, 8), (1, 8, 8))

    def forward(self, tags: Float[Tensor, "B D T h w"]) -> Float[Tensor, "B C T H W"]:
        """Encode each 8 x 8 tags as one non-negative vector."""
        encoded: Tensor = self.shrink(normalise(tags))
        return encoded.relu()


class SelfReading(nn.Module):
    """Self-attention within each frame (Fig. 4); gamma starts at 0, so it starts as the identity.

    Example:
        >>> from tubelet.attention.tags import SelfReadingConfig
        >>> features = torch.rand(1, 8, 2, 3, 5)
        >>> torch.equal(SelfReadingConfig(keys=4).build(channels=8)(features), features)
        True
    """

    def __init__(self, config: SelfReadingConfig, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, config.keys)
        self.key = nn.Linear(channels, config.keys)
        self.value = nn.Linear(channels, channels)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        """Add gamma times the attended features."""
        tokens = _tokens(features)
        attended = read_itself(self.query(tokens), self.key(tokens), self.value(tokens))
        return _features(self.gamma * attended + tokens, features)

    def weights(self, features: Float[Tensor, "1 C T H W"], t: int, cell: int) -> Float[Tensor, "H W"]:
        """Return the weights of a cell of frame `t` to the cells of its frame."""
        tokens = _tokens(features)[0, t]  # [P, C]
        logits = self.key(tokens) @ self.query(tokens[cell])
        return logits.softmax(-1).unflatten(-1, features.shape[-2:])


def _tokens(features: Tensor) -> Tensor:
    return features.permute(0, 2, 3, 4, 1).flatten(2, 3)  # [B, T, P, C]


def _features(tokens: Tensor, like: Tensor) -> Tensor:
    return tokens.unflatten(2, like.shape[-2:]).permute(0, 4, 1, 2, 3)  # [B, C, T, H, W]


class FrameReadingConfig(Config):
    """Settings of spatio-temporal and tag-based attention; the paper gives no widths.

    Example:
        >>> from tubelet.attention.tags import FrameReadingConfig
        >>> FrameReadingConfig(residual=False).build(inside=8, outside=16).residual is None
        True
    """

    keys: int = Field(default=64, ge=1)  # D
    residual: bool = True  # off: a cell's own features reach the output only through attention

    def build(self, inside: int, outside: int) -> FrameReading:
        """Build the module from `inside` to `outside` channels."""
        return FrameReading(self, inside, outside)


class SelfReadingConfig(Config):
    """Settings of self-attention within frames.

    Example:
        >>> from tubelet.attention.tags import SelfReadingConfig
        >>> SelfReadingConfig(keys=16).build(channels=8).key.out_features
        16
    """

    keys: int = Field(default=32, ge=1)  # D

    def build(self, channels: int) -> SelfReading:
        """Build the module for features of this many channels."""
        return SelfReading(self, channels)
