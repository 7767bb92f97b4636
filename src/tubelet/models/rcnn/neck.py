"""The neck: pyramid maps of a frame refined with those of other frames, before proposals or heads read them.

STA and the attention neck of ObjProp look at the previous frame, CompFeat's dual attention at support frames. Both
attention modules have one signature, refine(current [B, C, H, W], context [B, S, C, H, W]), so that this is one host.
Source: docs/papers/sta.md, docs/papers/compfeat.md. Letters: B images, S support frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from tubelet.attention.dual import DualConfig
from tubelet.attention.sta import STAConfig
from tubelet.core.errors import ConfigError
from tubelet.models.rcnn.detector import Detector, Features, Support

NeckConfig = Annotated[STAConfig | DualConfig, Field(discriminator="kind")]
Size = tuple[int, int]  # height, width in input pixels, without padding


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The raw maps of one frame, as a stream remembers them."""

    index: int
    maps: list[Tensor]  # [1, C, H/s, W/s]
    size: Size

    def like(self, other: Kept) -> bool:
        """Whether both frames have maps of one size, so that one can be read beside the other."""
        return self.size == other.size and self.maps[0].shape == other.maps[0].shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What B images look at: raw maps of S frames each."""

    maps: list[Tensor]  # [B, S, C, H/s, W/s] per level
    sizes: list[list[Size]]  # [B][S]

    @classmethod
    def of_batch(cls, maps: list[Tensor], sizes: list[Size], rows: list[list[int]]) -> Context:
        """Frames of one batch as context of others, by position."""
        return cls(maps=[level[torch.tensor(rows)] for level in maps], sizes=[[sizes[i] for i in row] for row in rows])

    @classmethod
    def of_kept(cls, kept: list[Kept]) -> Context:
        """Remembered frames as the context of one image."""
        levels = zip(*(frame.maps for frame in kept), strict=True)
        return cls(maps=[torch.cat(level)[None] for level in levels], sizes=[[frame.size for frame in kept]])

    def at(self, level: int, stride: int) -> tuple[Tensor, Tensor | None]:
        """Maps [B, S, C, h, w] of a level, and which cells [B, S, h, w] are image, None where all are."""
        maps = self.maps[level]
        return maps, inside(self.sizes, (maps.shape[-2], maps.shape[-1]), stride, maps.device)


class Neck(nn.Module):
    """Applies one attention module, its weights shared, to the levels that its config names."""

    def __init__(self, config: STAConfig | DualConfig, detector: Detector) -> None:
        super().__init__()
        if config.consumers == "proposals" and not detector.proposes_from_maps:
            raise ConfigError('consumers="proposals" needs a detector whose proposals come from the pyramid')
        self.config = config
        self.levels = positions(config.levels, detector.all_strides)
        self.attention = config.build(detector.channels)

    def forward(self, features: Features, context: Context, sizes: list[Size]) -> Features:
        """The maps of B images of these sizes, refined; only those that `consumers` names are exchanged."""
        maps = list(features.maps)
        for level, stride in self.levels.items():
            others, valid = context.at(level, stride)
            own = inside([sizes], (maps[level].shape[-2], maps[level].shape[-1]), stride, others.device)
            extra = [] if isinstance(self.config, STAConfig) or own is None else [own[0]]
            maps[level] = self.attention(maps[level], others, valid, *extra)
        if self.config.consumers == "proposals":
            return replace(features, taps=maps)
        return replace(features, maps=maps, taps=maps if features.taps is features.maps else features.taps)


def positions(levels: tuple[str, ...], strides: list[int]) -> dict[int, int]:
    """Place in the pyramid -> stride, of levels named P2 to P6. Raises ConfigError for one that the pyramid lacks."""
    named = {f"P{stride.bit_length() - 1}": place for place, stride in enumerate(strides)}
    for level in levels:
        if level not in named:
            raise ConfigError(f"levels: this detector's pyramid has {', '.join(named)}, not {level}")
    return {named[level]: strides[named[level]] for level in levels}


def inside(sizes: list[list[Size]], shape: Size, stride: int, device: torch.device) -> Tensor | None:
    """Cells [B, S, h, w] of a map that show image and not padding; None where there is no padding."""
    height, width = shape
    reach = torch.tensor([[[-(-h // stride), -(-w // stride)] for h, w in row] for row in sizes], device=device)
    if bool((reach[..., 0] >= height).all() and (reach[..., 1] >= width).all()):
        return None
    rows = torch.arange(height, device=device) < reach[..., 0, None]  # [B, S, h]
    columns = torch.arange(width, device=device) < reach[..., 1, None]
    return rows[..., :, None] & columns[..., None, :]


def supports_at(context: Context, level: int, stride: int) -> list[Support]:
    """What object-level attention reads, image by image."""
    maps, valid = context.at(level, stride)
    return [Support(maps[i], None if valid is None else valid[i]) for i in range(len(maps))]
