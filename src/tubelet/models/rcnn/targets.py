"""The truth of a batch as detector and heads want it: per image, in input pixels; and which frame looks at which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import roi_align

from tubelet.core import boxes as box_ops
from tubelet.core.types import Clip
from tubelet.models.inputs import Images
from tubelet.models.rcnn.detectors.detector import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Partners:
    """Positions in the batch: the frames that learn to detect, and for every frame the others that it looks at."""

    key: list[int]
    reference: dict[int, int]  # against which its objects are matched
    supports: dict[int, list[int]]  # which attention reads

    @property
    def references(self) -> list[int]:
        """The references of key frames that are no key frames themselves."""
        return sorted({self.reference[i] for i in self.key} - set(self.key))


def targets_of(clips: list[Clip], images: Images) -> list[Targets]:
    """The truth of every frame of every clip, in the order of the batch. A row of scores without a class is a crowd."""
    out: list[Targets] = []
    for clip in clips:
        assert clip.tracks is not None, "training clips carry truth"
        tracks, boxes = clip.tracks, clip.tracks.boxes
        ignored = tracks.scores.amax(1) <= 0 if len(tracks) else torch.zeros(0, dtype=torch.bool, device=boxes.device)
        for t in range(len(clip)):
            scale = images.scales[len(out)]
            there = box_ops.area(boxes[:, t]) > 0
            real = there & ~ignored
            out.append(
                Targets(
                    boxes=boxes[real, t] * scale,
                    labels=tracks.labels[real],
                    ids=tracks.ids[real],
                    masks=tracks.masks[real, t],
                    scale=scale,
                    ignored=boxes[there & ignored, t] * scale,
                )
            )
    return out


def partners_of(clips: list[Clip]) -> Partners:
    """Who looks at whom in a batch of clips.

    The reference of a frame is the clip's last context frame, or the next frame where there is none. Supports are the
    other context frames (CompFeat's clip is supports, reference, current), or the reference where it is alone.
    """
    key: list[int] = []
    reference: dict[int, int] = {}
    supports: dict[int, list[int]] = {}
    first = 0
    for clip in clips:
        context = (~clip.key).nonzero()[:, 0].tolist()
        for t in range(len(clip)):
            other = context[-1] if context and t != context[-1] else (t + 1) % len(clip)
            reference[first + t] = first + other
            supports[first + t] = [first + s for s in context[:-1] or [other]]
        key += [first + t for t in clip.key.nonzero()[:, 0].tolist()]
        first += len(clip)
    return Partners(key=key, reference=reference, supports=supports)


def crop_masks(targets: Targets, matched: Tensor, boxes: Tensor, resolution: int) -> Tensor:
    """Truth masks cut by boxes in input pixels, 0/1 float [P, resolution, resolution]."""
    if len(matched) == 0:
        return boxes.new_zeros(0, resolution, resolution)
    rows = torch.cat([matched[:, None].to(boxes.dtype), boxes / targets.scale], 1)
    cut = roi_align(targets.masks[:, None].to(boxes.dtype), rows, resolution, 1.0, aligned=True)
    return (cut[:, 0] >= 0.5).to(boxes.dtype)


def columns_of(target: Targets, matched: Tensor, known: Targets) -> Tensor:
    """The column of the match matrix that is right for each region: 1 + its object's place in `known`, else 0, [P]."""
    same = target.ids[matched][:, None] == known.ids[None]
    if same.shape[1] == 0:
        return same.new_zeros(len(same)).long()
    return torch.where(same.any(1), same.int().argmax(1) + 1, 0)


def where_now(known: Targets, target: Targets) -> Tensor:
    """Boxes [M, 4] in `target`'s frame of the objects of `known`, zeros where they are absent."""
    boxes = target.boxes.new_zeros(len(known.ids), 4)
    same = known.ids[:, None] == target.ids[None]
    known_at, target_at = same.nonzero(as_tuple=True)
    return boxes.index_copy(0, known_at, target.boxes[target_at])
