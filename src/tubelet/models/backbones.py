"""Image backbones: a frame in, a list of feature maps out, finest first.

Convolutional networks of timm (resnet18/34/50/101, mobilenetv2_100, tf_efficientnet_lite0, ...), and Swin Transformers
(Liu et al., ICCV 2021) as detectors use them: any input size, and a LayerNorm for each map.
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

# families whose last four feature maps have strides 4, 8, 16, 32 and whose modules are named in order
FAMILIES = r"(resnet|resnext|mobilenetv2|mobilenetv3|tf_efficientnet_lite|efficientnet_lite)"
SWIN = r"swin_(tiny|small|base|large)_patch4_window\d+_\d+$"
ODD = r"clip|resnetv2|ts$|q$|_mlp$"  # variants with another head or stem, or activations first


class BackboneConfig(Config):
    """A timm network, how many of its feature maps are used, and how much of it is frozen.

    Example:
        >>> from tubelet.models.backbones import BackboneConfig
        >>> backbone = BackboneConfig(name="resnet18", stages=2).build()
        >>> backbone.channels, backbone.strides
        ([256, 512], [16, 32])
    """

    kind: Literal["timm"] = "timm"
    name: str = "resnet50"
    stages: int = Field(default=4, ge=1, le=5)  # maps used, counted from the coarsest: 4 = C2..C5
    # 2: stem and stage 1, as in Mask R-CNN's fine-tuning (docs/papers/masktrack_rcnn.md)
    frozen_stages: int = Field(default=2, ge=0, le=5)
    frozen_norm: bool = True  # batch norm keeps its statistics
    pad_type: str = ""  # "same" for weights that come from TensorFlow
    drop_path: float = Field(default=0.3, ge=0, lt=1)  # Swin only: probability that the last block is dropped

    def build(self) -> Backbone:
        """Build the network; raises ConfigError for a name that is not in `names()`."""
        return Backbone(self)


@cache
def names() -> tuple[str, ...]:
    """List the backbones that can be built, by timm's names.

    Example:
        >>> from tubelet.models.backbones import names
        >>> "resnet50" in names(), "vgg16" in names()
        (True, False)
    """
    return tuple(name for name in timm.list_models() if _is_supported(name))


def _is_supported(name: str) -> bool:
    if re.match(SWIN, name):
        return True
    return bool(re.match(FAMILIES, name)) and not re.search(ODD, name)


class Backbone(nn.Module):
    """Images [B, 3, H, W] -> `stages` feature maps [B, C_i, H/s_i, W/s_i].

    `channels` lists the C_i and `strides` the s_i.

    Example:
        >>> from tubelet.models.backbones import BackboneConfig
        >>> backbone = BackboneConfig(name="mobilenetv2_100", stages=2).build()
        >>> [tuple(features.shape) for features in backbone(torch.zeros(1, 3, 64, 96))]
        [(1, 96, 4, 6), (1, 320, 2, 3)]
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        if config.name not in names():  # timm also accepts addresses and folders
            raise ConfigError(f"unknown backbone {config.name!r}; {nearest(config.name, names())}")
        self.config = config
        self.swin = re.match(SWIN, config.name) is not None
        options = _options(config, self.swin)
        self.body = timm.create_model(config.name, pretrained=False, features_only=True, **options)

        info: Any = self.body.feature_info
        modules: list[str] = info.module_name()
        self.channels: list[int] = info.channels()[-config.stages :]
        self.strides: list[int] = info.reduction()[-config.stages :]
        self.norms = nn.ModuleList()
        if self.swin:
            _pad_before_shifting(self.body)
            self.norms.extend(nn.LayerNorm(channels) for channels in self.channels)
            modules = ["patch_embed", *(name.replace(".", "_") for name in modules)]
        freeze(self.body, config.frozen_stages, modules)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps, finest first."""
        if not self.swin:
            return list(self.body(images)[-self.config.stages :])

        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % 4, 0, -height % 4))
        maps = self.body(padded)[-self.config.stages :]  # [B, h, w, C]
        return [norm(features).permute(0, 3, 1, 2) for norm, features in zip(self.norms, maps, strict=True)]

    def save_memory(self, on: bool = True) -> None:
        """Recompute each stage in the backward pass (gradient checkpointing)."""
        switch: Any = self.body.set_grad_checkpointing
        switch(on)

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training mode; batch norms stay frozen if the config says so."""
        super().train(mode)
        if self.config.frozen_norm:
            hold_norms(self.body)
        return self


class WholeWindows(nn.Module):
    """A Swin block that pads its map to whole windows before the shift, as detectors do.

    timm shifts first, which mixes other cells at the border of a padded map. The block reuses the parts of timm's
    block under their names, so weights load unchanged.
    """

    def __init__(self, block: SwinTransformerBlock) -> None:
        super().__init__()
        self.window: tuple[int, int] = block.window_size
        self.shift: tuple[int, int] = block.shift_size
        self.norm1 = block.norm1
        self.attn = block.attn
        self.drop_path1 = block.drop_path1
        self.norm2 = block.norm2
        self.mlp = block.mlp
        self.drop_path2 = block.drop_path2

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows, then apply the MLP to each cell: [B, H, W, C] -> [B, H, W, C]."""
        x = x + self.drop_path1(self.attend(self.norm1(x)))
        cells = x.flatten(1, 2)
        cells = cells + self.drop_path2(self.mlp(self.norm2(cells)))
        return cells.view(x.shape)

    def attend(self, x: Tensor) -> Tensor:
        """Apply self-attention within the windows of maps [B, H, W, C]."""
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % self.window[1], 0, -height % self.window[0]))
        padded = x.shape[1:3]

        mask = None
        shifted = any(self.shift)
        if shifted:
            x = x.roll((-self.shift[0], -self.shift[1]), (1, 2))
            mask = shift_mask(padded, self.window, self.shift, x)

        windows = window_partition(x, self.window).flatten(1, 2)  # [B windows, cells, C]
        windows = self.attn(windows, mask=mask).unflatten(1, self.window)
        x = window_reverse(windows, self.window, *padded)
        if shifted:
            x = x.roll(self.shift, (1, 2))
        return x[:, :height, :width]


def shift_mask(size: Sequence[int], window: tuple[int, int], shift: tuple[int, int], like: Tensor) -> Tensor:
    """Mask attention between cells that share a window only because of the shift.

    Args:
        size: Height and width of the padded map.
        window: Height and width of a window.
        shift: Cells that the map was rolled by, down and right.
        like: A tensor of the wanted type and device.

    Returns:
        [windows, cells, cells], added to the logits: 0, or -100 between cells that were not neighbours.

    Example:
        >>> from tubelet.models.backbones import shift_mask
        >>> mask = shift_mask((4, 4), window=(2, 2), shift=(1, 1), like=torch.zeros(1))
        >>> mask.shape, mask[0].abs().sum().item(), mask[3, 0].tolist()
        (torch.Size([4, 4, 4]), 0.0, [0.0, -100.0, -100.0, -100.0])
    """
    rows, columns = (_parts(side, by) for side, by in zip(window, shift, strict=True))
    areas = like.new_zeros(1, *size, 1)
    for number, (row, column) in enumerate(product(rows, columns)):
        areas[:, row, column] = number

    numbers = window_partition(areas, window).flatten(1)  # [windows, cells]
    separate = numbers[:, None] != numbers[:, :, None]
    return like.new_zeros(separate.shape).masked_fill(separate, -100.0)


def _parts(side: int, shift: int) -> tuple[slice, slice, slice]:
    """An axis of a shifted map: windows without a seam, and the last window before and after its seam."""
    return slice(None, -side), slice(-side, -shift), slice(-shift, None)


def _pad_before_shifting(body: nn.Module) -> None:
    for parent in list(body.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SwinTransformerBlock):
                setattr(parent, name, WholeWindows(child))


def _options(config: BackboneConfig, swin: bool) -> dict[str, Any]:
    if not swin:
        return {"pad_type": config.pad_type} if config.pad_type else {}
    # windows keep their size and shift on every map, however small: detectors' weights were trained so
    return {"strict_img_size": False, "always_partition": True, "drop_path_rate": config.drop_path}


def freeze(body: nn.Module, stages: int, modules: Sequence[str]) -> None:
    """Freeze the first `stages` feature modules of a network; the stem is the first.

    All parameters that come before the end of those modules are frozen.

    Example:
        >>> from tubelet.models.backbones import freeze
        >>> body = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
        >>> freeze(body, stages=1, modules=["0", "1"])
        >>> [parameter.requires_grad for parameter in body.parameters()]
        [False, False, True, True]
    """
    if stages == 0:
        return

    named = list(body.named_parameters())
    prefixes = tuple(f"{name}." for name in modules[:stages])
    inside = [i for i, (name, _) in enumerate(named) if name.startswith(prefixes)]
    if inside:
        end = inside[-1] + 1
    else:  # the stem is no module: everything before the next feature module
        end = next(i for i, (name, _) in enumerate(named) if name.startswith(f"{modules[stages]}."))

    for _, parameter in named[:end]:
        parameter.requires_grad_(False)


def hold_norms(module: nn.Module) -> None:
    """Put every batch norm in evaluation mode, so that it uses its running statistics.

    Scales and shifts still train if they require gradients.

    Example:
        >>> from tubelet.models.backbones import hold_norms
        >>> network = torch.nn.Sequential(torch.nn.BatchNorm2d(4)).train()
        >>> hold_norms(network)
        >>> network.training, network[0].training
        (True, False)
    """
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.eval()
