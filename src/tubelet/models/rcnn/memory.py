"""What is remembered from frame to frame: the memory queue of the papers, and how detections enter it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tubelet.models.rcnn.context import Kept, Size
from tubelet.models.rcnn.detectors.detector import Detections
from tubelet.models.rcnn.propagation import History
from tubelet.tracking.association import NEW

NO_HISTORY = History()
PER_OBJECT = ("descriptors", "boxes", "labels", "ids", "seen", "scores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is known of M objects after `time` frames: the memory queue of the papers."""

    descriptors: Tensor  # [M, ...] whatever the match head compares
    boxes: Tensor  # [M, 4] in input pixels
    labels: Tensor  # [M] of the first sight, never updated (the paper); with persistence, of the scores
    ids: Tensor  # [M]
    seen: Tensor  # [M] the last frame in which each was detected
    scores: Tensor  # [M, K] class probabilities when it was; with persistence, the best so far
    next_id: int = 1
    time: int = -1  # the last frame that was read
    size: Size | None = None  # of the input at that frame
    shot: int = 0  # of that frame
    shot_start: int = 0  # the first frame of this shot that was read
    frames: tuple[Kept, ...] = ()  # raw maps that attention looks at: of the last frames, or of support frames
    history: History = NO_HISTORY  # what propagation starts from

    @property
    def elsewhere(self) -> Tensor:
        """Objects that were last seen in another shot, bool [M]."""
        return self.seen < self.shot_start


def entered(memory: Memory, shot: int, time: int) -> Memory:
    """The same for a frame of a shot: at its first frame, `time`, maps and history of the shot before are forgotten."""
    if shot == memory.shot:
        return memory
    return replace(memory, shot=shot, shot_start=time, frames=(), history=NO_HISTORY)


def resized(memory: Memory, size: Size) -> Memory:
    """The same for an input of another size: boxes are stretched with the frame, maps are forgotten."""
    if memory.size is None or memory.size == size:
        return replace(memory, size=size)
    (height, width), (old_height, old_width) = size, memory.size
    stretch = memory.boxes.new_tensor([width / old_width, height / old_height] * 2)
    return replace(memory, size=size, boxes=memory.boxes * stretch, frames=(), history=NO_HISTORY)


def forget(memory: Memory, time: int, keep: int | None, cut_keep: int | None = None) -> Memory:
    """Without the objects that were not seen for `keep` frames, or `cut_keep` in another shot; None forgets nothing.

    The frames between a cut and an object's last sight before it count as well.
    """
    if (keep is None and cut_keep is None) or len(memory.ids) == 0:
        return memory
    recent = torch.ones_like(memory.seen, dtype=torch.bool)
    if keep is not None:
        recent = memory.seen >= torch.where(memory.elsewhere, memory.shot_start, time) - keep
    if cut_keep is not None:
        recent &= ~memory.elsewhere | (memory.seen >= time - cut_keep)
    return replace(memory, **{name: getattr(memory, name)[recent] for name in PER_OBJECT})


def remember(
    memory: Memory, descriptors: Tensor, found: Detections, decided: Tensor, time: int, persistence: float = 0.0
) -> tuple[Memory, Tensor, Detections]:
    """Write matched detections over their entries, append new ones; the dropped leave no trace.

    Returns the memory, and ids and detections of those kept. `persistence` is the share of its class probabilities that
    an object keeps from frame to frame where the present ones are lower (0: each frame speaks for itself, the paper).
    """
    matched, new = decided >= 0, decided == NEW
    entries = decided[matched]
    ids = torch.full_like(decided, -1)
    ids[matched] = memory.ids[entries]
    ids[new] = memory.next_id + torch.arange(int(new.sum()), device=ids.device)
    if persistence:
        scores = found.scores.clone()
        scores[matched] = torch.maximum(scores[matched], persistence * memory.scores[entries])
        found = replace(found, scores=scores)
    updated = {"descriptors": descriptors, "boxes": found.boxes, "seen": torch.full_like(ids, time)}
    updated |= {"scores": found.scores} | ({"labels": found.labels} if persistence else {})
    fields: dict[str, Any] = {}
    for name, values in {"labels": found.labels, "ids": ids, **updated}.items():
        known = getattr(memory, name).clone()
        if name in updated:
            known[entries] = values[matched]
        fields[name] = torch.cat([known, values[new]])
    memory = replace(memory, **fields, next_id=memory.next_id + int(new.sum()))
    kept = matched | new
    return memory, ids[kept], found[kept]
