"""Objects of single frames, and how they become the tracks of a clip.

Letters: N objects, T frames, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tubelet.core import boxes as box_ops
from tubelet.core.types import Tracks
from tubelet.models.rcnn.detectors.detector import Detections


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The N objects of one frame, on the CPU; `+` joins two sets.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Detections
        >>> from tubelet.models.rcnn.objects import Objects
        >>> detections = Detections(boxes=torch.zeros(2, 4), scores=torch.ones(2, 3))
        >>> objects = Objects(ids=torch.tensor([5, 5]), detections=detections, masks=torch.zeros(2, 4, 6))
        >>> (objects + objects).ids
        tensor([5, 5, 5, 5])
        >>> objects.last_of_each().ids
        tensor([5])
    """

    ids: Tensor  # [N]
    detections: Detections
    masks: Tensor  # [N, H, W] of the whole frame

    def __add__(self, more: Objects) -> Objects:
        if len(more.ids) == 0:  # as in most frames: the masks are large
            return self
        return Objects(
            ids=torch.cat([self.ids, more.ids]),
            detections=self.detections + more.detections,
            masks=torch.cat([self.masks, more.masks]),
        )

    def __getitem__(self, chosen: Tensor) -> Objects:
        """Select objects by a boolean mask [N]; nothing is copied where all are chosen."""
        if bool(chosen.all()):
            return self
        return Objects(ids=self.ids[chosen], detections=self.detections[chosen], masks=self.masks[chosen])

    def last_of_each(self) -> Objects:
        """Return the objects with unique ids: of equal ids (unique_ids off) the last one."""
        ids = self.ids.tolist()
        last = [i for i, track_id in enumerate(ids) if track_id not in ids[i + 1 :]]
        if len(last) == len(ids):
            return self
        return replace(self, ids=self.ids[last], detections=self.detections[last], masks=self.masks[last])


def recognised(boxes: Tensor, scores: Tensor, seen: Detections) -> Tensor:
    """Return class probabilities [N, K] of given objects, the largest of each 1.

    Those of the detection that overlaps the object's box most, if by more than one half (IoU); else
    the given ones, or equal ones for an object whose given ones are all 0: of an unknown class.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Detections
        >>> from tubelet.models.rcnn.objects import recognised
        >>> seen = Detections(boxes=torch.tensor([[0.0, 0, 8, 8]]), scores=torch.tensor([[0.1, 0.4]]))
        >>> recognised(torch.tensor([[0.0, 0, 8, 7], [20, 20, 30, 30]]), torch.zeros(2, 2), seen)
        tensor([[0.2500, 1.0000],
                [1.0000, 1.0000]])
    """
    scores = scores.to(boxes)
    if len(seen):
        overlap, nearest = box_ops.iou(boxes, seen.boxes.to(boxes)).max(1)
        scores = torch.where(overlap[:, None] > 0.5, seen.scores.to(boxes)[nearest], scores)

    best = scores.amax(1, keepdim=True)
    return torch.where(best > 0, scores / best.clamp(min=1e-6), 1.0)


def tracks_of(frames: list[Objects], index: Tensor, num_classes: int) -> Tracks:
    """Join the objects of T frames into tracks.

    A track's scores are means over the frames in which it is present.

    Args:
        frames: The objects of each frame.
        index: The frames' positions in the video, [T].
        num_classes: K.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Detections
        >>> from tubelet.models.rcnn.objects import Objects, tracks_of
        >>> detections = Detections(boxes=torch.zeros(1, 4), scores=torch.ones(1, 3))
        >>> frames = [
        ...     Objects(ids=torch.tensor([i]), detections=detections, masks=torch.ones(1, 4, 6))
        ...     for i in (7, 8)
        ... ]
        >>> tracks = tracks_of(frames, index=torch.tensor([0, 1]), num_classes=3)
        >>> tracks.ids, tracks.masks.flatten(2).any(2)
        (tensor([7, 8]), tensor([[ True, False],
                [False,  True]]))
    """
    frames = [objects.last_of_each() for objects in frames]
    if len(frames) == 1:
        (objects,) = frames
        return Tracks(
            ids=objects.ids,
            scores=objects.detections.scores,
            masks=objects.masks[:, None],
            index=index,
        )

    size = frames[0].masks.shape[-2:]
    ids = torch.unique(torch.cat([objects.ids for objects in frames]))
    scores = torch.zeros(len(ids), num_classes)
    count = torch.zeros(len(ids), 1)
    # bool: a byte a pixel, not four
    masks = torch.zeros(len(ids), len(frames), *size, dtype=torch.bool)
    for t, objects in enumerate(frames):
        rows = torch.searchsorted(ids, objects.ids)
        scores[rows] += objects.detections.scores
        count[rows] += 1
        masks[rows, t] = objects.masks > 0.5
    return Tracks(ids=ids, scores=scores / count.clamp(min=1), masks=masks, index=index)
