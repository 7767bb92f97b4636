"""The network of the tag-based system: pixels in, tags and semantic logits out, at half or all of the input's size.

    f, coordinates -> spatio-temporal attention -> u -> bottleneck -> q
    q -> tag generator -> p -> tag attention -> w
    q -> self-attention -> v
    v, w -> decoder -> O

Letters are the paper's (Fig. 1). An attention that is off is a plain projection of the same shape; a link that is off
leaves its maps out of the decoder's input.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tubelet.attention.tags import TagFeatures, coordinates
from tubelet.models.tags.config import NetworkConfig
from tubelet.models.tags.encoder import norm_by_clip
from tubelet.models.tags.heads import Bottleneck, DecoderConfig, Generator

CELL = 8  # tags along each side of a cell of the features


class TagOutput(NamedTuple):
    """What the network says of B clips."""

    tags: Tensor  # [B, D, T, h, w], float32
    logits: Tensor  # [B, K + 1, T, h, w], float32: background first


class TagNetwork(nn.Module):
    """Pixels [B, 3, T, H, W], H and W multiples of 16 -> TagOutput with h = 8 H / encoder.stride, likewise w."""

    def __init__(self, config: NetworkConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        channels, dimensions = config.channels, config.tag_dim
        self.encoder = config.encoder.build()
        inside = self.encoder.channels + 2 * config.loc_embed
        reading = config.spatio_temporal
        self.spatio_temporal = reading.build(inside, channels) if reading else nn.Conv3d(inside, channels, 1)
        self.bottleneck = Bottleneck(channels, config.bottleneck)
        self.generator = Generator(channels, config.generator, dimensions)
        if config.decoder is None:
            self.foreground = Generator(channels, config.generator, 1)
        else:
            self._build_semantic(config, config.decoder, num_classes)
        if config.norm == "clip":
            norm_by_clip(self)

    def _build_semantic(self, config: NetworkConfig, decoder: DecoderConfig, num_classes: int) -> None:
        channels = config.channels
        if config.tag_link:
            self.tag_features = TagFeatures(config.tag_dim, config.tag_features)
            self.tag_attention = (
                config.tag_attention.build(config.tag_features, channels)
                if config.tag_attention
                else nn.Conv3d(config.tag_features, channels, 1)
            )
        if config.self_link:
            self.self_attention = (
                config.self_attention.build(channels) if config.self_attention else nn.Conv3d(channels, channels, 1)
            )
        links = int(config.tag_link) + int(config.self_link)
        self.decoder = decoder.build(links * channels, num_classes + 1)

    def forward(self, pixels: Tensor) -> TagOutput:
        features = self.encoder(pixels)
        if self.config.loc_embed:
            features = torch.cat([features, coordinates(features)], 1)
        features = self.bottleneck(self.spatio_temporal(features))  # q, [B, C, T, H', W']
        tags = self.generator(features).float()
        if self.config.tag_range == "sigmoid":
            tags = tags.sigmoid()
        return TagOutput(tags, self.semantic(features, tags).float())

    def semantic(self, features: Tensor, tags: Tensor) -> Tensor:
        """Logits of the semantic branch from q and p; gradients reach the tags through their link."""
        if self.config.decoder is None:
            foreground = self.foreground(features)
            return torch.cat([torch.zeros_like(foreground), foreground], 1)  # cross-entropy of both is the binary one
        read = []
        if self.config.self_link:
            read.append(self.self_attention(features))
        if self.config.tag_link:
            read.append(self.tag_attention(self.tag_features(tags)))
        logits: Tensor = self.decoder(torch.cat(read, 1))
        return logits
