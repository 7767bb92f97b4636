"""The network of the tag-based system: pixels in, tags and semantic logits out.

    f, coordinates -> spatio-temporal attention -> u -> bottleneck -> q
    q -> tag generator -> p -> tag attention -> w
    q -> self-attention -> v
    v, w -> decoder -> O

Letters are the paper's (Fig. 1). An attention that is off is a plain projection of the same shape; a
link that is off leaves its maps out of the decoder's input. Tags and logits have eight times the
resolution of the cells, so half of the input's (stride 16) or all of it (stride 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.attention.tags import TagFeatures, coordinates
from tubelet.models.tags.config import NetworkConfig
from tubelet.models.tags.encoder import norm_by_clip
from tubelet.models.tags.heads import Bottleneck, DecoderConfig, Generator


class TagOutput(NamedTuple):
    """Tags and semantic logits of B clips.

    Example:
        >>> from tubelet.models.tags.network import TagOutput
        >>> output = TagOutput(torch.zeros(1, 1, 2, 4, 6), torch.zeros(1, 3, 2, 4, 6))
        >>> output.logits.argmax(1).unique()  # background everywhere
        tensor([0])
    """

    tags: Tensor  # [B, D, T, h, w], float32
    logits: Tensor  # [B, K + 1, T, h, w], float32: background first


class TagNetwork(nn.Module):
    """Pixels [B, 3, T, H, W], H and W multiples of 16 -> TagOutput with h = 8 H / encoder.stride.

    Example:
        >>> from tubelet.models.tags.config import NetworkConfig
        >>> from tubelet.models.tags.network import TagNetwork
        >>> config = NetworkConfig().override("encoder.width=4", "channels=8", "bottleneck=8")
        >>> network = TagNetwork(config, num_classes=2)
        >>> network(torch.zeros(1, 3, 2, 32, 48)).logits.shape
        torch.Size([1, 3, 2, 16, 24])
    """

    def __init__(self, config: NetworkConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.encoder = config.encoder.build(finer_maps=config.finer_maps)
        self.finer = self.encoder.channels[:-1] if config.finer_maps else ()

        inside = self.encoder.channels[-1] + 2 * config.loc_embed
        reading = config.spatio_temporal
        self.spatio_temporal = reading.build(inside, channels) if reading else nn.Conv3d(inside, channels, 1)
        self.bottleneck = Bottleneck(channels, config.bottleneck, config.upsampling, skip=config.bottleneck_skip)

        if config.tag_decoder is None:
            self.generator = Generator(channels, config.generator, config.tag_dim, config.upsampling)
        else:
            self.tag_decoder = config.tag_decoder.build(channels, config.tag_dim, config.upsampling, self.finer)

        if config.decoder is None:
            self.foreground = Generator(channels, config.generator, 1, config.upsampling)
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
        self.decoder = decoder.build(links * channels, num_classes + 1, config.upsampling, self.finer)

    def forward(self, pixels: Float[Tensor, "B 3 T H W"]) -> TagOutput:
        """Compute tags and semantic logits of a batch of clips."""
        *finer, features = self.encoder(pixels)
        if self.config.loc_embed:
            features = torch.cat([features, coordinates(features)], 1)
        features = self.bottleneck(self.spatio_temporal(features))  # q, [B, C, T, H', W']

        tags = self.tags(features, finer)
        return TagOutput(tags, self.semantic(features, tags, finer).float())

    def tags(self, features: Tensor, finer: Sequence[Tensor] = ()) -> Tensor:
        """Tags p from q, float32 [B, D, T, 8H', 8W']."""
        if self.config.tag_decoder is None:
            tags = self.generator(features).float()
        else:
            tags = self.tag_decoder(features, finer).float()

        if self.config.tag_range == "sigmoid":
            tags = tags.sigmoid()
        if self.config.tag_places:
            tags = add_places(tags, self.config.tag_places)
        return tags

    def semantic(self, features: Tensor, tags: Tensor, finer: Sequence[Tensor] = ()) -> Tensor:
        """Logits of the semantic branch from q and p; gradients reach the tags through their link."""
        if self.config.decoder is None:
            foreground = self.foreground(features)
            # cross-entropy of these two is the binary one
            return torch.cat([torch.zeros_like(foreground), foreground], 1)

        read = []
        if self.config.self_link:
            read.append(self.self_attention(features))
        if self.config.tag_link:
            read.append(self.tag_attention(self.tag_features(tags)))
        logits: Tensor = self.decoder(torch.cat(read, 1), finer)
        return logits


def add_places(tags: Float[Tensor, "B D T h w"], length: float) -> Float[Tensor, "B D T h w"]:
    """Add x and y of each pixel to the first two numbers of its tag; the longer side has this length.

    Example:
        >>> from tubelet.models.tags.network import add_places
        >>> add_places(torch.zeros(1, 2, 1, 1, 4), length=8.0)[0, 0, 0, 0]
        tensor([-4.0000, -1.3333,  1.3333,  4.0000])
    """
    height, width = tags.shape[-2:]
    places = coordinates(tags)  # x and y from -1 to 1
    sides = places.new_tensor([width, height]) / max(height, width)
    places = places * sides.view(1, 2, 1, 1, 1) * (length / 2)
    return torch.cat([tags[:, :2] + places, tags[:, 2:]], 1)
