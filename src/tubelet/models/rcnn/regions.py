"""Object-level attention: what heads see of each box, refined by support frames.

The socket (`RegionsConfig`, `RegionsPlug`) and its one plug, CompFeat's dual attention (docs/papers/compfeat.md).
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

LEVEL = "P4"  # of the support maps that are looked at
STRIDES = [4, 8, 16, 32, 64]


class RegionsConfig(PlugConfig):
    """What fits the socket `regions`."""

    default_kind: ClassVar[str | None] = "dual"

    @abstractmethod
    def build(self, channels: int, strides: list[int]) -> RegionsPlug:
        """For a pyramid of maps of that many channels at these strides."""


class RegionsPlug(nn.Module, ABC):
    """Refines the cells of each box by support frames; plugged into the detector, whose box head reads cells too."""

    at_test: bool = True  # off: in training only
    has_glances: bool = False  # whether `glances` returns anything

    @abstractmethod
    def support(self, context: Context) -> Support:
        """What `refine` reads of the frames that one image looks at."""

    @abstractmethod
    def refine(self, cells: Tensor, support: Support) -> Tensor:
        """Cells [P, C, r, r] of the boxes of one image, refined."""

    def glances(self, cells: Tensor, past: list[FrameFeatures]) -> list[Glance]:
        """Where the cells [1, C, r, r] of one box look; none by default."""
        return []


class DualRegionsConfig(DualConfig, RegionsConfig):
    """Dual attention of objects. The first two fields stand in files, without effect: the level looked at is P4."""

    kind: Literal["dual"] = "dual"
    levels: tuple[Literal["P2", "P3", "P4", "P5", "P6"], ...] = Field(default=("P3", "P4", "P5", "P6"), min_length=1)
    consumers: Literal["all", "proposals"] = "all"
    at_test: bool = True

    def build(self, channels: int, strides: list[int] = STRIDES) -> DualRegions:
        return DualRegions(self, channels, strides)


class DualRegions(Dual, RegionsPlug):
    """One support map, at stride 16, for all boxes of an image."""

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
        every = torch.arange(cells.shape[-1] * cells.shape[-2], device=cells.device)
        weights = self.look(cells, others, every, valid)
        if weights is None:
            return []
        return glances_over("temporal attention of the object", weights.mean(0), past, self.stride)
