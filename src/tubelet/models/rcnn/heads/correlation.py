"""CompFeat's correlation tracker as a match head.

Known objects are correlated with the detections and with one level of the pyramid. The module and
its equations: `attention/correlation.py`. Source: docs/papers/compfeat.md.

Letters: N detections, M known objects, C channels, r cells of a region's side.
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
    """Configure the correlation tracker as a match head.

    The fields are those of `CorrelationConfig`: `level` selects the pyramid level, `resolution` the
    cells of a region's side.

    Example:
        >>> from tubelet.models.rcnn.heads.correlation import CorrelationMatchConfig
        >>> head = CorrelationMatchConfig(resolution=7).build(channels=8)
        >>> regions = torch.zeros(2, 8, 7, 7)
        >>> head.describe(regions).shape
        torch.Size([2, 8, 7, 7])
    """

    kind: Literal["correlation"] = "correlation"

    def build(self, channels: int, strides: list[int] = STRIDES) -> CorrelationHead:
        """Build the head for a pyramid of `channels` channels at these strides."""
        return CorrelationHead(self, channels, strides)


class CorrelationHead(CorrelationMatch, MatchPlug):
    """Compare detections with known objects and, with the frame branch, known objects with the frame.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Features
        >>> from tubelet.models.rcnn.heads.correlation import CorrelationMatchConfig
        >>> head = CorrelationMatchConfig().build(channels=8, strides=[4, 8, 16, 32, 64])
        >>> maps = [torch.zeros(1, 8, 64 // s, 64 // s) for s in (4, 8, 16, 32, 64)]
        >>> current = torch.zeros(2, 8, head.resolution, head.resolution)
        >>> known = torch.zeros(3, 8, head.resolution, head.resolution)
        >>> boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0], [16.0, 16.0, 64.0, 64.0]])
        >>> head.compare(Features(maps=maps, taps=maps), boxes, current, known).shape
        torch.Size([2, 4])
    """

    def __init__(self, config: CorrelationMatchConfig, channels: int, strides: list[int]) -> None:
        super().__init__(config, channels)
        ((self.level, self.stride),) = positions((config.level,), strides).items()
        self.resolution = config.resolution
        self.has_glances = config.frame_branch

    def compare(self, features: Features, boxes: Tensor, current: Tensor, known: Tensor) -> Tensor:
        """Compute match logits [N, M + 1] of boxes [N, 4] of one image, in input pixels."""
        frame_map = self._map(features)
        logits: Tensor = self(current, known, frame_map, boxes.to(frame_map.device) / self.stride)
        return logits

    def compare_training(
        self, features: Features, boxes: Tensor, current: Tensor, known: Tensor, past: Targets, now: Targets
    ) -> tuple[Tensor, Losses]:
        """Compute match logits and, with the frame branch, the loss `correlation`.

        That loss trains the correlation map towards the known objects' boxes in this frame.
        """
        if not self.config.frame_branch:
            return self.compare(features, boxes, current, known), {}

        frame_map = self._map(features)
        refined = self.refine(known, frame_map)

        known_boxes = where_now(past, now) / self.stride
        map_loss = self.map_loss(known, frame_map, known_boxes, refined)

        logits: Tensor = self(current, known, frame_map, boxes / self.stride, refined)
        return logits, {"correlation": map_loss}

    def glances(
        self, features: Features, box: Tensor, current: Tensor, known: Tensor, ids: Tensor, frame: FrameFeatures
    ) -> list[Glance]:
        """Return the correlation map of the known object that matches the detection best."""
        if self.conv2 is None or len(ids) == 0:
            return []

        best = int(self.compare(features, box, current, known)[0, 1:].argmax())
        refined = self.refine(known[best][None], self._map(features))
        probabilities = self.conv2(refined)[0].sigmoid()

        name = f"correlation map of object {int(ids[best])}"
        return glances_over(name, probabilities, [frame], self.stride)

    def _map(self, features: Features) -> Tensor:
        """The pyramid level [C, H, W] of one image with which known objects are correlated."""
        return features.maps[self.level][0]
