"""Image backbones: a frame in, a list of feature maps out, finest first.

Any timm network with `features_only` serves (resnet18/34/50/101, mobilenetv2_100, tf_efficientnet_lite0, ...).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import timm
from pydantic import Field
from torch import Tensor, nn

from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, nearest

# the families whose feature maps have strides 4, 8, 16, 32 and whose modules are named in order; of these not the
# variants with another head, another stem or activations first
FAMILIES = r"(resnet|resnext|mobilenetv2|mobilenetv3|tf_efficientnet_lite|efficientnet_lite)"
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

    def build(self) -> Backbone:
        return Backbone(self)


@cache
def names() -> tuple[str, ...]:
    """Backbone names that can be given, in timm's spelling."""
    return tuple(n for n in timm.list_models() if re.match(FAMILIES, n) and not re.search(ODD, n))


class Backbone(nn.Module):
    """[B, 3, H, W] -> `stages` maps [B, C_i, H/s_i, W/s_i]; `channels` and `strides` tell C_i and s_i."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        if config.name not in names():  # timm would also take addresses and folders
            raise ConfigError(f"unknown backbone {config.name!r}; {nearest(config.name, names())}")
        extra: dict[str, Any] = {"pad_type": config.pad_type} if config.pad_type else {}
        self.body = timm.create_model(config.name, pretrained=False, features_only=True, **extra)
        self.config = config
        info: Any = self.body.feature_info
        self.channels: list[int] = info.channels()[-config.stages :]
        self.strides: list[int] = info.reduction()[-config.stages :]
        freeze(self.body, config.frozen_stages, info.module_name())

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.body(images)[-self.config.stages :])

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        if self.config.frozen_norm:
            hold_norms(self.body)
        return self


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
