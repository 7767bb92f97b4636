"""Object-level attention: the region features of each box, refined by support frames.

The socket (`RegionsConfig`, `RegionsPlug`) and its one plug, CompFeat's dual attention
(docs/papers/compfeat.md).
Letters: P regions, C channels, r cells of a region's side, S support frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tubelet.attention.dual import Dual, DualConfig
from tubelet.core.plugs import PlugConfig
from tubelet.core.protocol import Glance
from tubelet.models.rcnn.context import Context, FrameFeatures, Support, positions
from tubelet.models.rcnn.glances import glances_over

LEVEL = "P4"  # of the support maps that attention reads
STRIDES = [4, 8, 16, 32, 64]


class RegionsConfig(PlugConfig):
    """Base of configs for the socket `regions`."""

    default_kind: ClassVar[str | None] = "dual"

    @abstractmethod
    def build(self, channels: int, strides: list[int]) -> RegionsPlug:
        """Build the plug for a pyramid of `channels` channels at `strides`."""


class RegionsPlug(nn.Module, ABC):
    """Base of modules that refine region features by support frames.

    It is part of the detector, because the box head reads region features too.
    """

    at_test: bool = True  # off: in training only
    has_glances: bool = False  # whether `glances` returns anything

    @abstractmethod
    def support(self, context: Context) -> Support:
        """Return the maps of one image's support frames that `refine` reads."""

    @abstractmethod
    def refine(self, cells: Tensor, support: Support) -> Tensor:
        """Refine the region features [P, C, r, r] of the boxes of one image."""

    def glances(self, cells: Tensor, past: list[FrameFeatures]) -> list[Glance]:
        """Return the attention weights of one box's features [1, C, r, r]; none by default."""
        return []


class DualRegionsConfig(DualConfig, RegionsConfig):
    """Settings of CompFeat's dual attention of objects.

    `levels` and `consumers` have no effect and exist because files hold them; the support maps are
    those of P4.

    Example:
        >>> from tubelet.models.rcnn.context import Support
        >>> from tubelet.models.rcnn.regions import DualRegionsConfig
        >>> attention = DualRegionsConfig().build(channels=8)
        >>> support = Support(maps=torch.rand(2, 8, 4, 6), valid=None)
        >>> attention.refine(torch.rand(3, 8, 7, 7), support).shape
        torch.Size([3, 8, 7, 7])
    """

    kind: Literal["dual"] = "dual"
    levels: tuple[Literal["P2", "P3", "P4", "P5", "P6"], ...] = Field(default=("P3", "P4", "P5", "P6"), min_length=1)
    consumers: Literal["all", "proposals"] = "all"
    at_test: bool = True

    def build(self, channels: int, strides: list[int] = STRIDES) -> DualRegions:
        return DualRegions(self, channels, strides)


class DualRegions(Dual, RegionsPlug):
    """Dual attention of region features to the support maps at stride 16."""

    def __init__(self, config: DualRegionsConfig, channels: int, strides: list[int]) -> None:
        super().__init__(config, channels)
        ((self.level, self.stride),) = positions((LEVEL,), strides).items()
        self.at_test = config.at_test
        self.has_glances = config.at_test

    def support(self, context: Context) -> Support:
        return context.support(self.level, self.stride)

    def refine(self, cells: Tensor, support: Support) -> Tensor:
        valid = None if support.valid is None else support.valid[None]
        refined: Tensor = self(cells, support.maps[None], valid)
        return refined

    def glances(self, cells: Tensor, past: list[FrameFeatures]) -> list[Glance]:
        if not self.at_test:
            return []
        others, valid = Context.of_frames(past).at(self.level, self.stride)
        all_cells = torch.arange(cells.shape[-1] * cells.shape[-2], device=cells.device)
        weights = self.look(cells, others, all_cells, valid)
        if weights is None:
            return []
        return glances_over("temporal attention of the object", weights.mean(0), past, self.stride)
