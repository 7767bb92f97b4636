"""Objects of single frames, and what becomes of them over the frames of a clip.

Letters: N objects, T frames, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tubelet.core.types import Tracks
from tubelet.models.rcnn.detectors.detector import Detections


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The N objects of one frame."""

    ids: Tensor  # [N]
    found: Detections
    masks: Tensor  # [N, H, W] of the whole frame

    def __add__(self, more: Objects) -> Objects:
        boxes = torch.cat([self.found.boxes, more.found.boxes])
        scores = torch.cat([self.found.scores, more.found.scores])
        return Objects(
            ids=torch.cat([self.ids, more.ids]),
            found=Detections(boxes=boxes, scores=scores),
            masks=torch.cat([self.masks, more.masks]),
        )

    def last_of_each(self) -> Objects:
        """The same; where an id occurs twice (unique_ids off) the later one stands."""
        ids = self.ids.tolist()
        last = [i for i, one in enumerate(ids) if one not in ids[i + 1 :]]
        if len(last) == len(ids):
            return self
        return replace(self, ids=self.ids[last], found=self.found[last], masks=self.masks[last])


def tracks_of(frames: list[Objects], index: Tensor, num_classes: int) -> Tracks:
    """Objects of T single frames as Tracks over all of them; scores are means over the frames of presence."""
    frames = [objects.last_of_each() for objects in frames]
    if len(frames) == 1:
        (only,) = frames
        return Tracks(ids=only.ids, scores=only.found.scores, masks=only.masks[:, None], index=index)
    size = frames[0].masks.shape[-2:]
    ids = torch.unique(torch.cat([objects.ids for objects in frames]))
    scores = torch.zeros(len(ids), num_classes, device=ids.device)
    count = torch.zeros(len(ids), 1, device=ids.device)
    masks = torch.zeros(len(ids), len(frames), *size, dtype=torch.bool, device=ids.device)  # a byte a pixel, not four
    for t, objects in enumerate(frames):
        rows = torch.searchsorted(ids, objects.ids)
        scores[rows] += objects.found.scores
        count[rows] += 1
        masks[rows, t] = objects.masks > 0.5
    return Tracks(ids=ids, scores=scores / count.clamp(min=1), masks=masks, index=index)
