"""Image backbones: a frame in, a list of feature maps out, finest first.

Any timm network with `features_only` serves (resnet18/34/50/101, mobilenetv2_100, tf_efficientnet_lite0, ...), and
Swin Transformers (Liu et al., ICCV 2021) as detectors use them: any input size, each map through a norm of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any, Literal

import timm
import torch.nn.functional as F
from pydantic import Field
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn

from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, nearest

# the families whose feature maps have strides 4, 8, 16, 32 and whose modules are named in order; of these not the
# variants with another head, another stem or activations first
FAMILIES = r"(resnet|resnext|mobilenetv2|mobilenetv3|tf_efficientnet_lite|efficientnet_lite)"
SWIN = r"swin_(tiny|small|base|large)_patch4_window\d+_\d+$"
ODD = r"clip|resnetv2|ts$|q$|_mlp$"


class BackboneConfig(Config):
    """A timm network, its last `stages` maps, and how much of it stays as pretrained."""

    kind: Literal["timm"] = "timm"
    name: str = "resnet50"
    stages: int = Field(default=4, ge=1, le=5)  # maps taken, counted from the coarsest: 4 = C2..C5
    frozen_stages: int = Field(
        default=2, ge=0, le=5
    )  # stem and stage 1, as Mask R-CNN's fine-tuning does (docs/papers/masktrack_rcnn.md)
    frozen_norm: bool = True  # batch norm keeps its statistics
    pad_type: str = ""  # "same" for weights that come from TensorFlow
    drop_path: float = Field(default=0.3, ge=0, lt=1)  # of Swin alone: the last block's chance to be left out

    def build(self) -> Backbone:
        return Backbone(self)


@cache
def names() -> tuple[str, ...]:
    """Backbone names that can be given, in timm's spelling."""
    known = timm.list_models()
    return tuple(n for n in known if re.match(SWIN, n) or (re.match(FAMILIES, n) and not re.search(ODD, n)))


class Backbone(nn.Module):
    """[B, 3, H, W] -> `stages` maps [B, C_i, H/s_i, W/s_i]; `channels` and `strides` tell C_i and s_i."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        if config.name not in names():  # timm would also take addresses and folders
            raise ConfigError(f"unknown backbone {config.name!r}; {nearest(config.name, names())}")
        self.swin = re.match(SWIN, config.name) is not None
        self.body = timm.create_model(config.name, pretrained=False, features_only=True, **_options(config, self.swin))
        if self.swin:
            _pad_before_shifting(self.body)
        self.config = config
        info: Any = self.body.feature_info
        self.channels: list[int] = info.channels()[-config.stages :]
        self.strides: list[int] = info.reduction()[-config.stages :]
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in self.channels) if self.swin else nn.ModuleList()
        modules = [name.replace(".", "_") for name in info.module_name()] if self.swin else info.module_name()
        freeze(self.body, config.frozen_stages, ["patch_embed", *modules] if self.swin else modules)

    def forward(self, images: Tensor) -> list[Tensor]:
        if not self.swin:
            return list(self.body(images)[-self.config.stages :])
        height, width = images.shape[-2:]
        maps = self.body(F.pad(images, (0, -width % 4, 0, -height % 4)))[-self.config.stages :]
        return [norm(m).permute(0, 3, 1, 2) for norm, m in zip(self.norms, maps, strict=True)]

    def save_memory(self, on: bool = True) -> None:
        """In training, compute each stage again in the backward pass instead of keeping what is inside it."""
        switch: Any = self.body.set_grad_checkpointing
        switch(on)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        if self.config.frozen_norm:
            hold_norms(self.body)
        return self


class WholeWindows(nn.Module):
    """A block that pads its map to whole windows and then shifts them, as detectors do; timm pads what is shifted.

    Made of the parts of timm's block, under their names.
    """

    def __init__(self, block: SwinTransformerBlock) -> None:
        super().__init__()
        self.window: tuple[int, int] = block.window_size
        self.shift: tuple[int, int] = block.shift_size
        self.norm1, self.attn, self.drop_path1 = block.norm1, block.attn, block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        x = x + self.drop_path1(self.attend(self.norm1(x)))
        cells = x.flatten(1, 2)
        cells = cells + self.drop_path2(self.mlp(self.norm2(cells)))
        return cells.view(x.shape)

    def attend(self, x: Tensor) -> Tensor:
        """Attention within windows of maps [B, H, W, C]."""
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % self.window[1], 0, -height % self.window[0]))
        whole = x.shape[1:3]
        shifted = any(self.shift)
        if shifted:
            x = x.roll((-self.shift[0], -self.shift[1]), (1, 2))
        windows = window_partition(x, self.window).flatten(1, 2)  # [B windows, cells, C]
        mask = shift_mask(whole, self.window, self.shift, x) if shifted else None
        windows = self.attn(windows, mask=mask).unflatten(1, self.window)
        x = window_reverse(windows, self.window, *whole)
        if shifted:
            x = x.roll(self.shift, (1, 2))
        return x[:, :height, :width]


def shift_mask(size: Sequence[int], window: tuple[int, int], shift: tuple[int, int], like: Tensor) -> Tensor:
    """What keeps cells apart that only a shift has brought into one window: [windows, cells, cells], 0 or -100."""
    areas = like.new_zeros(1, *size, 1)
    rows, columns = (
        (slice(None, -wide), slice(-wide, -by), slice(-by, None)) for wide, by in zip(window, shift, strict=True)
    )
    for number, (row, column) in enumerate(product(rows, columns)):
        areas[:, row, column] = number
    numbers = window_partition(areas, window).flatten(1)  # [windows, cells]
    apart = numbers[:, None] != numbers[:, :, None]
    return like.new_zeros(apart.shape).masked_fill(apart, -100.0)


def _pad_before_shifting(body: nn.Module) -> None:
    for parent in list(body.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SwinTransformerBlock):
                setattr(parent, name, WholeWindows(child))


def _options(config: BackboneConfig, swin: bool) -> dict[str, Any]:
    if not swin:
        return {"pad_type": config.pad_type} if config.pad_type else {}
    # windows of one size that shift on every map, however small: so were the detectors' weights trained
    return {"strict_img_size": False, "always_partition": True, "drop_path_rate": config.drop_path}


def freeze(body: nn.Module, stages: int, modules: Sequence[str]) -> None:
    """Stop gradients of everything up to the `stages`-th of the feature `modules`, the stem counting as the first."""
    parameters = list(body.named_parameters())
    done = tuple(f"{name}." for name in modules[:stages])
    held = max((i for i, (name, _) in enumerate(parameters) if name.startswith(done)), default=-1) if done else -1
    if stages and held < 0:  # a stem without a module of its own: all that comes before the next feature module
        held = next(i for i, (name, _) in enumerate(parameters) if name.startswith(f"{modules[stages]}.")) - 1
    for _, parameter in parameters[: held + 1]:
        parameter.requires_grad_(False)


def hold_norms(module: nn.Module) -> None:
    """Keep every batch norm at its running statistics; scales and shifts still train where they ask for gradients."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.eval()
