"""Decoders of queries: what all have (queries, heads), and Mask2Former-VIS's, which looks at all frames jointly.

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

from tubelet.attention.blocks import QueryLayer, sine_position, sine_time, unblock
from tubelet.core.plugs import PlugConfig
from tubelet.models.mask2former.pixel_decoder import LEVELS, Pixels

Classification = Literal["ce", "focal"]  # softmax with a column for "no object", or a sigmoid for each class


class QueryPrediction(NamedTuple):
    """What the heads say of B clips after one layer; a mask logit is a kernel times a feature."""

    logits: Tensor  # [B, Q, K + 1] ("ce") or [B, Q, K] ("focal"), float32
    kernels: Tensor  # [B, T, Q, D], float32; the same in every frame where frames are decoded jointly


class Level(NamedTuple):
    """One scale of B clips of T frames."""

    tokens: Tensor  # [B T, L, D]
    position: Tensor  # [L, D], 2-D
    features: Tensor  # [B T, D, L]: the mask features at this resolution, without gradient


class QueryDecoderConfig(PlugConfig):
    """What fits the socket `decoder`."""

    @abstractmethod
    def build(self, channels: int, queries: int, num_classes: int) -> QueryDecoder:
        """For pixels of so many channels."""


class QueryDecoder(nn.Module, ABC):
    """Learned queries, layers that a subclass gives, and the heads that read queries before and after each of them."""

    layers: nn.ModuleList
    cross_frame: float = 0.0  # weight of a frame's kernel in the other frames, of the losses (IFR, Eq. 6-7)
    cross_all_layers: bool = True  # all predictions have that loss, or the last alone

    def __init__(self, channels: int, queries: int, num_classes: int, classification: Classification) -> None:
        super().__init__()
        self.classification: Classification = classification
        self.queries_features = nn.Embedding(queries, channels)
        self.queries_embedder = nn.Embedding(queries, channels)
        self.level_embed = nn.Embedding(LEVELS, channels)
        self.layernorm = nn.LayerNorm(channels)
        self.mask_predictor = MaskPredictor(channels)
        self.class_predictor = nn.Linear(channels, num_classes + (classification == "ce"))
        if classification == "focal":  # begins with a probability of 0.01 for every class
            nn.init.constant_(self.class_predictor.bias, -4.59512)

    def forward(self, pixels: Pixels, length: int, *, every: bool, save_memory: bool = False) -> list[QueryPrediction]:
        """Predictions for B clips of `length` frames; `every`: before the first layer and after each, else the last.

        `save_memory` computes each layer again in the backward pass instead of keeping what is inside it.
        """
        levels = self.levels(pixels)
        queries = self.queries_features.weight.expand(len(pixels.features) // length, -1, -1)
        predictions = [self.predict(queries, queries[:, None].expand(-1, length, -1, -1))]
        for number in range(len(self.layers)):
            step = number, queries, levels[number % LEVELS], predictions[-1].kernels
            if save_memory:
                queries, frames = checkpoint(self.advance, *step, use_reentrant=False)
            else:
                queries, frames = self.advance(*step)
            predictions.append(self.predict(queries, frames))
            if not every:
                del predictions[:-1]
        return predictions

    @abstractmethod
    def advance(self, number: int, queries: Tensor, level: Level, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """Layer `number` on clip queries [B, Q, D], given the kernels of the prediction before: the next clip queries,
        and those that masks come from, [B, T, Q, D].
        """

    @property
    def exclusive(self) -> bool:
        """Whether classes exclude one another and "no object" is one of them."""
        return self.classification == "ce"

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class logits of queries [Q, K + 1 or K] -> the probability of each class, [Q, K]."""
        return logits.softmax(-1)[:, :-1] if self.exclusive else logits.sigmoid()

    def levels(self, pixels: Pixels) -> list[Level]:
        """The three scales with what all layers need of them."""
        made = []
        for scale, embedding in zip(pixels.scales, self.level_embed.weight, strict=True):
            height, width = scale.shape[-2:]
            # resizing is linear: the mask of resized features is the resized mask, at a fraction of the work
            small = F.interpolate(pixels.features.detach(), (height, width), mode="bilinear", align_corners=False)
            position = sine_position(height, width, scale.shape[1], scale.device).flatten(0, 1)
            made.append(Level(scale.flatten(2).transpose(1, 2) + embedding, position, small.flatten(2)))
        return made

    def predict(self, clip: Tensor, frames: Tensor) -> QueryPrediction:
        """Heads on clip queries [B, Q, D] and frame queries [B, T, Q, D], in float32 also under autocast."""
        length = frames.shape[1]
        if frames.stride(1) == 0:  # the same in every frame: once is enough
            frames = frames[:, :1]
        with torch.autocast(clip.device.type, enabled=False):
            logits = self.class_predictor(self.layernorm(clip.float()))
            kernels = self.mask_predictor(self.layernorm(frames.float()))
        return QueryPrediction(logits, kernels.expand(-1, length, -1, -1))


class MaskPredictor(nn.Module):
    """A query -> the kernel of its mask."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        linears = [nn.Linear(channels, channels) for _ in range(3)]
        activations = [nn.ReLU(), nn.ReLU(), nn.Identity()]
        self.mask_embedder = nn.Sequential(
            *(nn.Sequential(linear, act) for linear, act in zip(linears, activations, strict=True))
        )

    def forward(self, queries: Tensor) -> Tensor:
        return self.mask_embedder(queries)


class JointDecoder(QueryDecoder):
    """A query looks at the tokens of all frames of its clip at once, where its mask of the layer before was."""

    def __init__(self, config: JointConfig, channels: int, queries: int, num_classes: int) -> None:
        super().__init__(channels, queries, num_classes, config.classification)
        self.config = config
        self.layers = nn.ModuleList(
            QueryLayer(channels, config.heads, config.feed_forward) for _ in range(config.layers)
        )

    def advance(self, number: int, queries: Tensor, level: Level, kernels: Tensor) -> tuple[Tensor, Tensor]:
        layer = self.layers[number]
        assert isinstance(layer, QueryLayer)
        batch, length = kernels.shape[:2]
        where = level.position
        if self.config.temporal_position:
            where = where + sine_time(length, where.shape[-1], where.device)[:, None]  # [T, L, D]
        tokens = level.tokens.unflatten(0, (batch, length))
        memory = layer.cross_attn.project((tokens + where).flatten(1, 2), tokens.flatten(1, 2))
        allowed = unblock(seen_by(kernels, level.features).transpose(1, 2).flatten(2))  # [B, Q, T L]
        queries = layer(queries, self.queries_embedder.weight, memory, allowed)
        return queries, queries[:, None].expand(-1, length, -1, -1)


class JointConfig(QueryDecoderConfig):
    """Nine layers, as published."""

    kind: Literal["joint"] = "joint"
    layers: int = Field(default=9, ge=1)
    heads: int = Field(default=8, ge=1)
    feed_forward: int = Field(default=2048, ge=1)
    temporal_position: bool = True  # off: the image model, whose tokens know no time
    classification: Classification = "ce"

    def build(self, channels: int, queries: int, num_classes: int) -> JointDecoder:
        return JointDecoder(self, channels, queries, num_classes)


@torch.no_grad()
def seen_by(kernels: Tensor, features: Tensor) -> Tensor:
    """Kernels [B, T, Q, D] on features [B T, D, L] -> where a mask's probability is one half or more, [B, T, Q, L]."""
    with torch.autocast(kernels.device.type, enabled=False):
        return (kernels @ features.unflatten(0, kernels.shape[:2])) >= 0
