"""Pixel decoder: a backbone's maps -> one fine map for masks and three coarse ones for the queries to look at.

Source: Cheng et al., Mask2Former, CVPR 2022; deformable attention over strides 32, 16 and 8. Frames are independent.
Parameter names are those of transformers' `model.pixel_level_module.decoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tubelet.attention.blocks import sine_position
from tubelet.attention.deformable import DeformableConfig, Shapes, reference_points
from tubelet.core.config import Config

LEVELS = 3  # strides 32, 16, 8


class Pixels(NamedTuple):
    """What the decoder of queries sees of B frames."""

    features: Tensor  # [B, D, H/4, W/4]: a query's kernel times these is its mask
    scales: list[Tensor]  # [B, D, h, w] at strides 32, 16, 8, in this order

    def at(self, frames: slice) -> Pixels:
        """Some of the frames."""
        return Pixels(self.features[frames], [scale[frames] for scale in self.scales])

    @staticmethod
    def cat(parts: Sequence[Pixels]) -> Pixels:
        """Frames of several batches, one after another."""
        if len(parts) == 1:
            return parts[0]
        scales = [torch.cat(maps) for maps in zip(*(part.scales for part in parts), strict=True)]
        return Pixels(torch.cat([part.features for part in parts]), scales)


class PixelDecoderConfig(Config):
    """Six encoder layers of 256 channels, as published."""

    channels: int = Field(default=256, ge=8)
    layers: int = Field(default=6, ge=1)
    feed_forward: int = Field(default=1024, ge=1)
    groups: int = Field(default=32, ge=1)  # of the group norms
    attention: DeformableConfig = DeformableConfig()

    def build(self, channels: Sequence[int]) -> PixelDecoder:
        """For a backbone with these channels at strides 4, 8, 16, 32."""
        return PixelDecoder(self, channels)


class PixelDecoder(nn.Module):
    """Maps C2..C5 of B frames -> `Pixels`; always in float32, because small offsets decide where it looks."""

    def __init__(self, config: PixelDecoderConfig, channels: Sequence[int]) -> None:
        super().__init__()
        dim, groups = config.channels, config.groups
        self.input_projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, dim, 1), nn.GroupNorm(groups, dim)) for c in reversed(channels[1:])
        )
        self.level_embed = nn.Parameter(torch.randn(LEVELS, dim))
        self.encoder = DeformableEncoder(config)
        self.adapter_1 = nn.Sequential(nn.Conv2d(channels[0], dim, 1, bias=False), nn.GroupNorm(groups, dim))
        self.layer_1 = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.GroupNorm(groups, dim), nn.ReLU()
        )
        self.mask_projection = nn.Conv2d(dim, dim, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor], *, save_memory: bool = False) -> Pixels:
        """`save_memory` computes each layer again in the backward pass instead of keeping what is inside it."""
        with torch.autocast(maps[0].device.type, enabled=False):
            return self._decode([m.float() for m in maps], save_memory)

    def _decode(self, maps: list[Tensor], save_memory: bool) -> Pixels:
        coarse = [
            project(m)  # strides 32, 16, 8
            for project, m in zip(self.input_projections, reversed(maps[1:]), strict=True)
        ]
        shapes = [(m.shape[-2], m.shape[-1]) for m in coarse]
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in coarse], 1)  # [B, L, D]
        tokens = self.encoder(tokens, self._position(shapes, tokens), shapes, save_memory)
        scales = [
            part.transpose(1, 2).unflatten(2, shape)  # [B, D, h, w]
            for part, shape in zip(tokens.split([h * w for h, w in shapes], 1), shapes, strict=True)
        ]
        fine = self.adapter_1(maps[0])
        fine = fine + F.interpolate(scales[-1], fine.shape[-2:], mode="bilinear", align_corners=False)
        return Pixels(self.mask_projection(self.layer_1(fine)), scales)

    def _position(self, shapes: Shapes, tokens: Tensor) -> Tensor:
        parts = [
            sine_position(*shape, tokens.shape[-1], tokens.device).flatten(0, 1) + level
            for shape, level in zip(shapes, self.level_embed, strict=True)
        ]
        return torch.cat(parts)  # [L, D]


class DeformableEncoder(nn.Module):
    """Layers of deformable attention among the cells of three levels."""

    def __init__(self, config: PixelDecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def forward(self, tokens: Tensor, position: Tensor, shapes: Shapes, save_memory: bool) -> Tensor:
        """Tokens [B, L, D], position [L, D] -> [B, L, D]."""
        references = reference_points(shapes, tokens.device)
        for layer in self.layers:
            if save_memory:
                tokens = checkpoint(layer, tokens, position, references, shapes, use_reentrant=False)
            else:
                tokens = layer(tokens, position, references, shapes)
        return tokens


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network; each is added to its input, then normalised."""

    def __init__(self, config: PixelDecoderConfig) -> None:
        super().__init__()
        dim = config.channels
        self.self_attn = config.attention.build(dim, LEVELS)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, config.feed_forward), nn.Linear(config.feed_forward, dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, tokens: Tensor, position: Tensor, references: Tensor, shapes: Shapes) -> Tensor:
        attended = self.self_attn(tokens + position, references, tokens, shapes)
        tokens = self.self_attn_layer_norm(tokens + attended)
        return self.final_layer_norm(tokens + self.fc2(F.relu(self.fc1(tokens))))
