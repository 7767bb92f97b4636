"""CompFeat's correlation tracker as a match head: references are correlated over one level of the pyramid.

The module and its equations: `attention/correlation.py`; docs/papers/compfeat.md.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tubelet.attention.correlation import CorrelationConfig, CorrelationMatch
from tubelet.core.protocol import Glance
from tubelet.core.types import Losses
from tubelet.models.rcnn.context import FrameFeatures, positions
from tubelet.models.rcnn.detectors.detector import Features, Targets
from tubelet.models.rcnn.glances import glances_over
from tubelet.models.rcnn.heads.sockets import MatchConfig, MatchPlug
from tubelet.models.rcnn.targets import where_now

STRIDES = [4, 8, 16, 32, 64]


class CorrelationMatchConfig(CorrelationConfig, MatchConfig):
    """The tracker's own fields; `level` and `resolution` say what it reads of the pyramid."""

    kind: Literal["correlation"] = "correlation"

    def build(self, channels: int, strides: list[int] = STRIDES) -> CorrelationHead:
        return CorrelationHead(self, channels, strides)


class CorrelationHead(CorrelationMatch, MatchPlug):
    """Compares regions with each other and, with the frame branch, with the present frame's map."""

    def __init__(self, config: CorrelationMatchConfig, channels: int, strides: list[int]) -> None:
        super().__init__(config, channels)
        ((self.level, self.stride),) = positions((config.level,), strides).items()
        self.resolution = config.resolution
        self.has_glances = config.frame_branch

    def compare(self, features: Features, boxes: Tensor, current: Tensor, known: Tensor) -> Tensor:
        logits: Tensor = self(current, known, self._map(features), boxes / self.stride)
        return logits

    def compare_training(
        self, features: Features, boxes: Tensor, current: Tensor, known: Tensor, past: Targets, now: Targets
    ) -> tuple[Tensor, Losses]:
        """With the loss of the correlation map, which shows where the known objects are in this frame."""
        if not self.config.frame_branch:
            return self.compare(features, boxes, current, known), {}
        frame = self._map(features)
        refined = self.refine(known, frame)
        shown = self.map_loss(known, frame, where_now(past, now) / self.stride, refined)
        logits: Tensor = self(current, known, frame, boxes / self.stride, refined)
        return logits, {"correlation": shown}

    def glances(
        self, features: Features, box: Tensor, current: Tensor, known: Tensor, ids: Tensor, frame: FrameFeatures
    ) -> list[Glance]:
        """The correlation map of the known object that the detection fits best."""
        if self.conv2 is None or len(ids) == 0:
            return []
        best = self.compare(features, box, current, known)[0, 1:].argmax()
        refined = self.refine(known[best][None], self._map(features))
        name = f"correlation map of object {int(ids[best])}"
        return glances_over(name, self.conv2(refined)[0].sigmoid(), [frame], self.stride)

    def _map(self, features: Features) -> Tensor:
        """The level [C, H, W] of one image over which references are moved."""
        return features.maps[self.level][0]
