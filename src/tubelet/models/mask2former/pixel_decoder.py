"""Pixel decoder: a backbone's maps -> one fine map for masks, and three coarse ones that queries attend to.

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
    """The maps of B frames that the query decoder reads.

    Example:
        >>> from tubelet.models.mask2former.pixel_decoder import Pixels
        >>> frame = Pixels(torch.zeros(1, 8, 16, 16), [torch.zeros(1, 8, n, n) for n in (2, 4, 8)])
        >>> Pixels.cat([frame, frame]).features.shape
        torch.Size([2, 8, 16, 16])
    """

    features: Tensor  # [B, D, H/4, W/4]: a query's kernel times these is its mask
    scales: list[Tensor]  # [B, D, h, w] at strides 32, 16, 8, in this order

    def at(self, frames: slice) -> Pixels:
        """Select frames."""
        return Pixels(self.features[frames], [scale[frames] for scale in self.scales])

    @staticmethod
    def cat(parts: Sequence[Pixels]) -> Pixels:
        """Concatenate the frames of several batches."""
        if len(parts) == 1:
            return parts[0]

        features = torch.cat([part.features for part in parts])
        maps_by_scale = zip(*(part.scales for part in parts), strict=True)
        return Pixels(features, [torch.cat(maps) for maps in maps_by_scale])


class PixelDecoderConfig(Config):
    """Settings of the pixel decoder; by default six encoder layers of 256 channels, as published.

    Example:
        >>> from tubelet.models.mask2former.pixel_decoder import PixelDecoderConfig
        >>> config = PixelDecoderConfig(channels=32, layers=1, feed_forward=64, groups=8)
        >>> decoder = config.build(channels=[16, 24, 32, 64])
        >>> len(decoder.encoder.layers)
        1
    """

    channels: int = Field(default=256, ge=8)
    layers: int = Field(default=6, ge=1)
    feed_forward: int = Field(default=1024, ge=1)
    groups: int = Field(default=32, ge=1)  # of the group norms
    attention: DeformableConfig = DeformableConfig()

    def build(self, channels: Sequence[int]) -> PixelDecoder:
        """Build the decoder for a backbone with these channels at strides 4, 8, 16, 32."""
        return PixelDecoder(self, channels)


class PixelDecoder(nn.Module):
    """Backbone maps C2..C5 of B frames -> `Pixels`.

    Computed in float32 even under autocast, because the offsets of deformable attention are small.

    Example:
        >>> from tubelet.models.mask2former.pixel_decoder import PixelDecoderConfig
        >>> config = PixelDecoderConfig(channels=32, layers=1, feed_forward=64, groups=8)
        >>> decoder = config.build(channels=[16, 24, 32, 64])
        >>> sizes = {16: 16, 24: 8, 32: 4, 64: 2}  # channels: side of the map
        >>> maps = [torch.zeros(1, channels, side, side) for channels, side in sizes.items()]
        >>> pixels = decoder(maps)
        >>> pixels.features.shape, [scale.shape[-1] for scale in pixels.scales]
        (torch.Size([1, 32, 16, 16]), [2, 4, 8])
    """

    def __init__(self, config: PixelDecoderConfig, channels: Sequence[int]) -> None:
        super().__init__()
        dim = config.channels
        groups = config.groups
        self.input_projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, dim, 1), nn.GroupNorm(groups, dim)) for c in reversed(channels[1:])
        )
        self.level_embed = nn.Parameter(torch.randn(LEVELS, dim))
        self.encoder = DeformableEncoder(config)
        self.adapter_1 = nn.Sequential(
            nn.Conv2d(channels[0], dim, 1, bias=False),
            nn.GroupNorm(groups, dim),
        )
        self.layer_1 = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            nn.GroupNorm(groups, dim),
            nn.ReLU(),
        )
        self.mask_projection = nn.Conv2d(dim, dim, 1)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor], *, save_memory: bool = False) -> Pixels:
        """Decode the maps; `save_memory` recomputes each encoder layer in the backward pass."""
        with torch.autocast(maps[0].device.type, enabled=False):
            return self._decode([features.float() for features in maps], save_memory)

    def _decode(self, maps: list[Tensor], save_memory: bool) -> Pixels:
        coarse: list[Tensor] = []  # strides 32, 16, 8
        for project, features in zip(self.input_projections, reversed(maps[1:]), strict=True):
            coarse.append(project(features))
        shapes = [(features.shape[-2], features.shape[-1]) for features in coarse]

        tokens = torch.cat([features.flatten(2).transpose(1, 2) for features in coarse], 1)  # [B, L, D]
        tokens = self.encoder(tokens, self._position(shapes, tokens), shapes, save_memory)

        cells = [height * width for height, width in shapes]
        scales: list[Tensor] = []
        for part, shape in zip(tokens.split(cells, 1), shapes, strict=True):
            scales.append(part.transpose(1, 2).unflatten(2, shape))  # [B, D, h, w]

        fine = self.adapter_1(maps[0])
        fine = fine + F.interpolate(scales[-1], fine.shape[-2:], mode="bilinear", align_corners=False)
        return Pixels(self.mask_projection(self.layer_1(fine)), scales)

    def _position(self, shapes: Shapes, tokens: Tensor) -> Tensor:
        positions: list[Tensor] = []
        for (height, width), level in zip(shapes, self.level_embed, strict=True):
            position = sine_position(height, width, tokens.shape[-1], tokens.device)
            positions.append(position.flatten(0, 1) + level)
        return torch.cat(positions)  # [L, D]


class DeformableEncoder(nn.Module):
    """Layers of deformable self-attention among the cells of three levels."""

    def __init__(self, config: PixelDecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def forward(self, tokens: Tensor, position: Tensor, shapes: Shapes, save_memory: bool) -> Tensor:
        """Refine tokens [B, L, D] with positions [L, D] -> [B, L, D]."""
        references = reference_points(shapes, tokens.device)
        for layer in self.layers:
            if save_memory:
                tokens = checkpoint(layer, tokens, position, references, shapes, use_reentrant=False)
            else:
                tokens = layer(tokens, position, references, shapes)
        return tokens


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each added to its input and normalised."""

    def __init__(self, config: PixelDecoderConfig) -> None:
        super().__init__()
        dim = config.channels
        self.self_attn = config.attention.build(dim, LEVELS)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.feed_forward)
        self.fc2 = nn.Linear(config.feed_forward, dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, tokens: Tensor, position: Tensor, references: Tensor, shapes: Shapes) -> Tensor:
        """Refine tokens [B, L, D]."""
        attended = self.self_attn(tokens + position, references, tokens, shapes)
        tokens = self.self_attn_layer_norm(tokens + attended)
        return self.final_layer_norm(tokens + self.fc2(F.relu(self.fc1(tokens))))
