"""Query decoders: the base class (queries, heads), and Mask2Former-VIS's, which attends to all frames jointly.

Source: Cheng et al., Mask2Former for Video Instance Segmentation, 2021. Parameter names are those of transformers'
Mask2FormerForUniversalSegmentation without their prefixes:

    model.pixel_level_module.decoder.                -> pixel_decoder.
    model.transformer_module.decoder.mask_predictor. -> decoder.mask_predictor.
    model.transformer_module.decoder.                -> decoder.      (layers, layernorm)
    model.transformer_module.                        -> decoder.      (queries_features, queries_embedder, level_embed)
    class_predictor.                                 -> decoder.class_predictor.

and `cross_attn.in_proj_{weight,bias}` there is q_proj, k_proj and v_proj here, one below the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tubelet.attention.blocks import PixelMemory, QueryLayer, sine_position, sine_time, unblock
from tubelet.core.plugs import PlugConfig
from tubelet.models.mask2former.pixel_decoder import LEVELS, Pixels
from tubelet.models.queries.looks import QueryLook, shown_frames, with_share
from tubelet.models.queries.prediction import Classification, QueryPrediction


class Level(NamedTuple):
    """One scale of B clips of T frames."""

    tokens: Tensor  # [B T, L, D]
    position: Tensor  # [L, D], 2-D
    features: Tensor  # [B T, D, L]: mask features at this resolution, without gradient


class QueryDecoderConfig(PlugConfig):
    """Base class of the configs that fit the socket `decoder`."""

    @abstractmethod
    def build(self, channels: int, queries: int, num_classes: int) -> QueryDecoder:
        """Build the decoder for pixels of this many channels."""


class QueryDecoder(nn.Module, ABC):
    """Learned queries, the layers of a subclass, and the heads that predict before and after each layer."""

    layers: nn.ModuleList
    cross_frame: float = 0.0  # weight of the loss of a frame's kernel in the other frames (IFR, Eq. 6-7)
    cross_all_layers: bool = True  # apply that loss to all predictions, or only to the last

    def __init__(self, channels: int, queries: int, num_classes: int, classification: Classification) -> None:
        super().__init__()
        self.classification: Classification = classification
        self.queries_features = nn.Embedding(queries, channels)
        self.queries_embedder = nn.Embedding(queries, channels)
        self.level_embed = nn.Embedding(LEVELS, channels)
        self.layernorm = nn.LayerNorm(channels)
        self.mask_predictor = MaskPredictor(channels)
        self.class_predictor = nn.Linear(channels, num_classes + (classification == "ce"))
        if classification == "focal":  # every class starts with a probability of 0.01
            nn.init.constant_(self.class_predictor.bias, -4.59512)

    def forward(self, pixels: Pixels, length: int, *, every: bool, save_memory: bool = False) -> list[QueryPrediction]:
        """Predict objects for B clips of `length` frames.

        Args:
            pixels: Maps of B * length frames.
            length: Frames of a clip.
            every: Return the predictions before the first layer and after each layer, else only
                the last.
            save_memory: Recompute each layer in the backward pass (gradient checkpointing).
        """
        levels = self.levels(pixels)
        queries = self.queries_features.weight.expand(len(pixels.features) // length, -1, -1)
        prediction = self.predict(queries, queries[:, None].expand(-1, length, -1, -1))
        predictions = [prediction]

        for number in range(len(self.layers)):
            inputs = (number, queries, levels[number % LEVELS], prediction.kernels)
            if save_memory:
                queries, frames = checkpoint(self.advance, *inputs, use_reentrant=False)
            else:
                queries, frames = self.advance(*inputs)
            prediction = self.predict(queries, frames)
            predictions.append(prediction)
            if not every:
                del predictions[:-1]  # so that the memory is free
        return predictions

    @abstractmethod
    def advance(self, number: int, queries: Tensor, level: Level, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """Apply layer `number`.

        Args:
            number: Of the layer.
            queries: Clip queries [B, Q, D].
            level: The scale that this layer attends to.
            kernels: Of the prediction before, [B, T, Q, D]; their masks limit the attention.

        Returns:
            The next clip queries [B, Q, D], and the queries that masks are predicted from,
            [B, T, Q, D].
        """

    @torch.no_grad()
    def looks(self, pixels: Pixels, length: int, query: int, t: int) -> list[QueryLook]:
        """Return what a query attends to in the last layer, to decide about frame `t` of one clip."""
        levels = self.levels(pixels)
        queries = self.queries_features.weight[None]
        prediction = self.predict(queries, queries[:, None].expand(-1, length, -1, -1))
        last = len(self.layers) - 1
        for number in range(last):
            queries, frames = self.advance(number, queries, levels[number % LEVELS], prediction.kernels)
            prediction = self.predict(queries, frames)
        return self.looks_of_last(queries, levels[last % LEVELS], prediction.kernels, query, t)

    @abstractmethod
    def looks_of_last(self, queries: Tensor, level: Level, kernels: Tensor, query: int, t: int) -> list[QueryLook]:
        """Return the attention weights of one query in the last layer; `t` is a frame of the clip, B = 1.

        The other arguments are those of `advance`.
        """

    @property
    def exclusive(self) -> bool:
        """Whether classes are a softmax with a column for "no object"."""
        return self.classification == "ce"

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert class logits [Q, K + 1] ("ce") or [Q, K] ("focal") to class probabilities [Q, K]."""
        if self.exclusive:
            return logits.softmax(-1)[:, :-1]
        return logits.sigmoid()

    def levels(self, pixels: Pixels) -> list[Level]:
        """Compute once, for each of the three scales, what all layers share."""
        levels: list[Level] = []
        for scale, embedding in zip(pixels.scales, self.level_embed.weight, strict=True):
            height, width = scale.shape[-2:]
            tokens = scale.flatten(2).transpose(1, 2) + embedding
            position = sine_position(height, width, scale.shape[1], scale.device).flatten(0, 1)

            # resizing is linear: the mask of resized features is the resized mask, at a fraction of the work
            features = pixels.features.detach()
            small = F.interpolate(features, (height, width), mode="bilinear", align_corners=False)
            levels.append(Level(tokens, position, small.flatten(2)))
        return levels

    def predict(self, clip: Tensor, frames: Tensor) -> QueryPrediction:
        """Apply the heads to clip queries [B, Q, D] and frame queries [B, T, Q, D].

        Computed in float32 even under autocast.
        """
        length = frames.shape[1]
        if frames.stride(1) == 0:  # expanded: the same in every frame, so compute one
            frames = frames[:, :1]
        with torch.autocast(clip.device.type, enabled=False):
            logits = self.class_predictor(self.layernorm(clip.float()))
            kernels = self.mask_predictor(self.layernorm(frames.float()))
        return QueryPrediction(logits, kernels.expand(-1, length, -1, -1))


class MaskPredictor(nn.Module):
    """Queries [..., D] -> the kernels of their masks [..., D].

    Example:
        >>> from tubelet.models.mask2former.decoder import MaskPredictor
        >>> MaskPredictor(channels=8)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mask_embedder = nn.Sequential(
            nn.Sequential(nn.Linear(channels, channels), nn.ReLU()),
            nn.Sequential(nn.Linear(channels, channels), nn.ReLU()),
            nn.Sequential(nn.Linear(channels, channels), nn.Identity()),
        )

    def forward(self, queries: Tensor) -> Tensor:
        """Predict the kernels."""
        return self.mask_embedder(queries)


class JointDecoder(QueryDecoder):
    """A query attends to the tokens of all frames at once, inside its mask of the layer before.

    Example:
        >>> from tubelet.models.mask2former.decoder import JointConfig
        >>> from tubelet.models.mask2former.pixel_decoder import Pixels
        >>> config = JointConfig(layers=1, heads=2, feed_forward=16)
        >>> decoder = config.build(channels=8, queries=5, num_classes=3)
        >>> pixels = Pixels(torch.rand(2, 8, 16, 16), [torch.rand(2, 8, n, n) for n in (2, 4, 8)])
        >>> prediction = decoder(pixels, length=2, every=False)[-1]
        >>> prediction.logits.shape, prediction.kernels.shape
        (torch.Size([1, 5, 4]), torch.Size([1, 2, 5, 8]))
    """

    def __init__(self, config: JointConfig, channels: int, queries: int, num_classes: int) -> None:
        super().__init__(channels, queries, num_classes, config.classification)
        self.config = config
        self.layers = nn.ModuleList(
            QueryLayer(channels, config.heads, config.feed_forward) for _ in range(config.layers)
        )

    def advance(self, number: int, queries: Tensor, level: Level, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """Apply layer `number`; the queries are the same in every frame."""
        layer = self.layers[number]
        assert isinstance(layer, QueryLayer)
        memory, allowed = self._memory(layer, level, kernels)
        queries = layer(queries, self.queries_embedder.weight, memory, allowed)
        return queries, queries[:, None].expand(-1, kernels.shape[1], -1, -1)

    def _memory(self, layer: QueryLayer, level: Level, kernels: Tensor) -> tuple[PixelMemory, Tensor]:
        """Projected tokens of all frames, and which of them each query may attend to, [B, Q, T L]."""
        batch, length = kernels.shape[:2]
        position = level.position
        if self.config.temporal_position:
            time = sine_time(length, position.shape[-1], position.device)
            position = position + time[:, None]  # [T, L, D]
        tokens = level.tokens.unflatten(0, (batch, length))
        memory = layer.cross_attn.project((tokens + position).flatten(1, 2), tokens.flatten(1, 2))

        inside = inside_masks(kernels, level.features)  # [B, T, Q, L]
        return memory, unblock(inside.transpose(1, 2).flatten(2))

    def looks_of_last(self, queries: Tensor, level: Level, kernels: Tensor, query: int, t: int) -> list[QueryLook]:
        """Return the query's cross-attention in some frames of the clip."""
        layer = self.layers[-1]
        assert isinstance(layer, QueryLayer)
        memory, allowed = self._memory(layer, level, kernels)
        rows = queries[:, [query]] + self.queries_embedder.weight[[query]]
        weights = layer.cross_attn.weights(rows, memory, allowed[:, [query]])  # [1, 1, T L]

        length = kernels.shape[1]
        by_frame = weights[0, 0].unflatten(0, (length, -1))
        looks = []
        for frame in shown_frames(length, t):
            name = with_share(f"query {query}, cross-attention", by_frame[frame].sum())
            looks.append(QueryLook(name, frame, by_frame[frame]))
        return looks


class JointConfig(QueryDecoderConfig):
    """Settings of Mask2Former-VIS's decoder; by default nine layers, as published.

    Example:
        >>> from tubelet.models.mask2former.decoder import JointConfig
        >>> config = JointConfig(layers=3, heads=4, feed_forward=128)
        >>> len(config.build(channels=64, queries=10, num_classes=4).layers)
        3
    """

    kind: Literal["joint"] = "joint"
    layers: int = Field(default=9, ge=1)
    heads: int = Field(default=8, ge=1)
    feed_forward: int = Field(default=2048, ge=1)
    temporal_position: bool = True  # off for the image model, whose tokens have no time
    classification: Classification = "ce"

    def build(self, channels: int, queries: int, num_classes: int) -> JointDecoder:
        """Build the decoder for pixels of this many channels."""
        return JointDecoder(self, channels, queries, num_classes)


@torch.no_grad()
def inside_masks(kernels: Tensor, features: Tensor) -> Tensor:
    """Find the tokens inside each query's mask, where its probability is at least one half.

    Args:
        kernels: [B, T, Q, D].
        features: [B T, D, L].

    Returns:
        bool [B, T, Q, L].

    Example:
        >>> from tubelet.models.mask2former.decoder import inside_masks
        >>> inside_masks(torch.ones(1, 1, 1, 1), torch.tensor([[[-1.0, 2.0]]]))
        tensor([[[[False,  True]]]])
    """
    with torch.autocast(kernels.device.type, enabled=False):
        return (kernels @ features.unflatten(0, kernels.shape[:2])) >= 0
