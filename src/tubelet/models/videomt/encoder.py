"""A plain ViT with register tokens, split into layers of the image alone and last layers that queries enter.

The shape is that of DINOv2 with registers (Darcet et al., ICLR 2024), built by timm under timm's names, so that its
weights load as they are. Letters: B frames, P patches, S = 1 + registers + P tokens of the image, D channels.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from pydantic import Field, model_validator
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tubelet.core.config import Config
from tubelet.models.backbones import BackboneConfig
from tubelet.models.videomt.patches import TrunkPatches


class ViTConfig(Config):
    """The shape of the ViT; by default ViT-S at 640 x 640 with three layers of queries.

    Example:
        >>> from tubelet.models.videomt.encoder import ViTConfig
        >>> ViTConfig(channels=768, heads=12).grid
        (40, 40)
    """

    channels: int = Field(default=384, ge=8, le=4096)
    layers: int = Field(default=12, ge=1, le=64)
    query_layers: int = Field(default=3, ge=1)  # L2: the last layers, in which queries attend with the image's tokens
    heads: int = Field(default=6, ge=1)
    patch: Literal[8, 16, 32] = 16  # pixels of a patch's side
    size: tuple[int, int] = (640, 640)  # height and width of the padded input, which learned positions belong to
    registers: int = Field(default=4, ge=0, le=64)
    mlp_ratio: float = Field(default=4.0, gt=0, le=16)
    layer_scale: float = Field(default=1e-5, gt=0)  # LayerScale's start
    drop_path: float = Field(default=0.0, ge=0, lt=1)  # probability that the last layer is dropped in training
    trunk: BackboneConfig | None = None  # embeds its maps instead of pixels (patches.py); None in the paper

    @model_validator(mode="after")
    def _fits(self) -> ViTConfig:
        if self.channels % self.heads:
            raise ValueError(f"expected heads that divide the {self.channels} channels, got {self.heads}")
        if self.query_layers > self.layers:
            raise ValueError(f"query_layers: expected at most the {self.layers} layers, got {self.query_layers}")
        if any(side < self.patch or side > 8192 or side % self.patch for side in self.size):
            raise ValueError(f"size: expected multiples of a patch of {self.patch} up to 8192, got {self.size}")
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.size
        return height // self.patch, width // self.patch

    def build(self) -> Encoder:
        """Build the encoder with random weights."""
        return Encoder(self)


class Encoder(nn.Module):
    """Images [B, 3, H, W] of the configured size -> tokens [B, S, D], before the layers that queries enter.

    Example:
        >>> from tubelet.models.videomt.encoder import ViTConfig
        >>> config = ViTConfig(channels=16, layers=3, query_layers=1, heads=2, size=(32, 64))
        >>> encoder = config.build()
        >>> encoder(torch.zeros(2, 3, 32, 64)).shape  # a class token, four registers, eight patches
        torch.Size([2, 13, 16])
        >>> len(encoder.query_layers)
        1
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.body = VisionTransformer(
            img_size=config.size,
            patch_size=config.patch,
            num_classes=0,
            embed_dim=config.channels,
            depth=config.layers,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            init_values=config.layer_scale,
            reg_tokens=config.registers,
            no_embed_class=True,
            drop_path_rate=config.drop_path,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        if config.trunk is not None:
            self.body.add_module("patch_embed", TrunkPatches(config.trunk, config.channels, config.patch))

    @property
    def prefix(self) -> int:
        """The number of tokens before those of patches: one of the class, and the registers."""
        return 1 + self.config.registers

    @property
    def image_layers(self) -> list[nn.Module]:
        """The layers that only the image's tokens pass."""
        return list(self.body.blocks)[: -self.config.query_layers]

    @property
    def query_layers(self) -> list[nn.Module]:
        """The last layers, which queries pass too."""
        return list(self.body.blocks)[-self.config.query_layers :]

    def forward(self, images: Tensor, *, save_memory: bool = False) -> Tensor:
        """Embed the patches and apply the layers of the image alone.

        Args:
            images: Normalised pixels [B, 3, H, W], padded to the configured size.
            save_memory: Recompute each layer in the backward pass (gradient checkpointing).
        """
        tokens = self.embed(images)
        for layer in self.image_layers:
            if save_memory:
                tokens = checkpoint(layer, tokens, use_reentrant=False)
            else:
                tokens = layer(tokens)
        return tokens

    def embed(self, images: Tensor) -> Tensor:
        """Tokens of the class, the registers and the patches, with the patches' positions, [B, S, D]."""
        patches = self.body.patch_embed(images) + self.body.pos_embed
        start = [self.body.cls_token, self.body.reg_token]  # None without registers
        rows = [tokens.expand(len(images), -1, -1) for tokens in start if tokens is not None]
        return torch.cat([*rows, patches], 1)

    def norm(self, tokens: Tensor) -> Tensor:
        """Apply the final LayerNorm."""
        normed: Tensor = self.body.norm(tokens)
        return normed
