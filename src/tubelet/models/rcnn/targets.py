"""Training targets of a batch for the detector and the heads.

Targets are per image, with boxes in input pixels. `Partners` says which frames are compared with
which. Letters: M objects of an image, P regions, H and W the frame's size.
"""

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
    """Key frames of a batch, and the reference and support frames of every frame.

    All numbers are positions in the batch.

    Example:
        >>> from tubelet.models.rcnn.targets import Partners
        >>> partners = Partners(key=[1], reference={0: 1, 1: 0}, supports={0: [1], 1: [0]})
        >>> partners.references
        [0]
    """

    key: list[int]  # frames with detection losses
    reference: dict[int, int]  # of every frame: the frame with whose objects its own are matched
    supports: dict[int, list[int]]  # of every frame: the frames that attention reads

    @property
    def references(self) -> list[int]:
        """The reference frames of key frames that are not key frames themselves, ascending."""
        return sorted({self.reference[i] for i in self.key} - set(self.key))


def targets_of(clips: list[Clip], images: Images) -> list[Targets]:
    """Collect the targets of every frame of every clip, in the order of the batch.

    Every clip needs `tracks`. An object whose row of scores has no class is a crowd: its boxes are
    listed as ignored.

    Example:
        >>> from tubelet.models.inputs import InputConfig
        >>> from tubelet.models.rcnn.targets import targets_of
        >>> masks = torch.zeros(1, 2, 90, 160)
        >>> masks[0, 0, 10:30, 20:60] = 1  # absent from the second frame
        >>> scores = torch.tensor([[0.0, 1.0]])
        >>> ids = torch.tensor([7])
        >>> tracks = tubelet.Tracks(ids=ids, scores=scores, masks=masks, index=torch.arange(2))
        >>> frames = torch.zeros(2, 3, 90, 160, dtype=torch.uint8)
        >>> key = torch.ones(2, dtype=torch.bool)
        >>> clip = tubelet.Clip(frames=frames, index=torch.arange(2), key=key, tracks=tracks)
        >>> first, second = targets_of([clip], InputConfig().prepare([frames]))
        >>> first.boxes, first.labels, len(second.boxes)
        (tensor([[ 80.,  40., 240., 120.]]), tensor([1]), 0)
    """
    targets: list[Targets] = []
    for clip in clips:
        assert clip.tracks is not None, "training clips carry truth"
        tracks = clip.tracks
        boxes = tracks.boxes

        if len(tracks):
            is_crowd = tracks.scores.amax(1) <= 0
        else:
            is_crowd = torch.zeros(0, dtype=torch.bool, device=boxes.device)

        for t in range(len(clip)):
            scale = images.scales[len(targets)].to(boxes.device)
            present = box_ops.area(boxes[:, t]) > 0
            objects = present & ~is_crowd
            crowds = present & is_crowd

            frame_targets = Targets(
                boxes=boxes[objects, t] * scale,
                labels=tracks.labels[objects],
                ids=tracks.ids[objects],
                masks=tracks.masks[objects, t],
                scale=scale,
                ignored=boxes[crowds, t] * scale,
            )
            targets.append(frame_targets)

    return targets


def partners_of(clips: list[Clip]) -> Partners:
    """Choose the reference and support frames of every frame in a batch of clips.

    The reference of a frame is the clip's last context frame; the last context frame itself, and
    every frame of a clip without context, has the next frame of the clip (the first, after the
    last). Supports are the other context frames (CompFeat's clip is supports, reference, current),
    or the reference if there are none.

    Example:
        >>> from tubelet.models.rcnn.targets import partners_of
        >>> frames = torch.zeros(3, 3, 4, 6, dtype=torch.uint8)
        >>> key = torch.tensor([False, False, True])
        >>> clip = tubelet.Clip(frames=frames, index=torch.arange(3), key=key)
        >>> partners = partners_of([clip])
        >>> partners.key, partners.reference[2], partners.supports[2]
        ([2], 1, [0])
    """
    key: list[int] = []
    reference: dict[int, int] = {}
    supports: dict[int, list[int]] = {}
    start = 0  # position of the clip's first frame in the batch

    for clip in clips:
        context = (~clip.key).nonzero()[:, 0].tolist()

        for t in range(len(clip)):
            if context and t != context[-1]:
                reference_frame = context[-1]
            else:
                reference_frame = (t + 1) % len(clip)

            support_frames = context[:-1] or [reference_frame]
            reference[start + t] = start + reference_frame
            supports[start + t] = [start + s for s in support_frames]

        key += [start + t for t in clip.key.nonzero()[:, 0].tolist()]
        start += len(clip)

    return Partners(key=key, reference=reference, supports=supports)


def crop_masks(targets: Targets, matched: Tensor, boxes: Tensor, resolution: int) -> Tensor:
    """Crop the true mask of each region's object to its box, 0/1 [P, resolution, resolution].

    `matched` [P] are the positions of the objects in `targets`, `boxes` [P, 4] are in input pixels.
    The result has the dtype of `boxes`.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Targets
        >>> from tubelet.models.rcnn.targets import crop_masks
        >>> masks = torch.zeros(1, 8, 8)
        >>> masks[0, :, 4:] = 1
        >>> box = torch.tensor([[4.0, 0.0, 8.0, 8.0]])
        >>> number = torch.tensor([0])
        >>> targets = Targets(
        ...     boxes=box, labels=number, ids=number, masks=masks, scale=torch.ones(4), ignored=box[:0]
        ... )
        >>> crop_masks(targets, number, torch.tensor([[0.0, 0.0, 8.0, 8.0]]), resolution=2)
        tensor([[[0., 1.],
                 [0., 1.]]])
    """
    if len(matched) == 0:
        return boxes.new_zeros(0, resolution, resolution)

    regions = torch.cat([matched[:, None].to(boxes.dtype), boxes / targets.scale], 1)
    masks = targets.masks[:, None].to(boxes.dtype)
    crops = roi_align(masks, regions, resolution, 1.0, aligned=True)
    return (crops[:, 0] >= 0.5).to(boxes.dtype)


def columns_of(target: Targets, matched: Tensor, known: Targets) -> Tensor:
    """Find the right column of the match matrix for each region, [P].

    The column is 1 + the position in `known` of the region's object, and 0 (a new object) if it is
    not there. `matched` [P] are the positions of the objects in `target`.

    Example:
        >>> from types import SimpleNamespace
        >>> from tubelet.models.rcnn.targets import columns_of
        >>> known = SimpleNamespace(ids=torch.tensor([7, 8]))  # only the ids are read
        >>> target = SimpleNamespace(ids=torch.tensor([8, 9]))
        >>> columns_of(target, torch.tensor([0, 0, 1]), known)
        tensor([2, 2, 0])
    """
    same = target.ids[matched][:, None] == known.ids[None]
    if same.shape[1] == 0:
        return same.new_zeros(len(same)).long()

    return torch.where(same.any(1), same.int().argmax(1) + 1, 0)


def where_now(known: Targets, target: Targets) -> Tensor:
    """Look up the boxes [M, 4] of the objects of `known` in `target`, zeros for absent ones.

    Example:
        >>> from types import SimpleNamespace
        >>> from tubelet.models.rcnn.targets import where_now
        >>> known = SimpleNamespace(ids=torch.tensor([7, 8]))
        >>> target = SimpleNamespace(ids=torch.tensor([8]), boxes=torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        >>> where_now(known, target)
        tensor([[0., 0., 0., 0.],
                [1., 2., 3., 4.]])
    """
    boxes = target.boxes.new_zeros(len(known.ids), 4)
    same = known.ids[:, None] == target.ids[None]
    known_rows, target_rows = same.nonzero(as_tuple=True)
    return boxes.index_copy(0, known_rows, target.boxes[target_rows])
