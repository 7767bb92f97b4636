"""The memory of an online model: objects of earlier frames, and how detections update it.

It is the papers' memory queue. Letters: M objects in memory, N detections, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tubelet.core import boxes as box_ops
from tubelet.models.rcnn.context import FrameFeatures, Size
from tubelet.models.rcnn.detectors.detector import Detections
from tubelet.models.rcnn.propagation import History
from tubelet.tracking.association import NEW, AssociationConfig, across_cuts, cue_scores

NO_HISTORY = History()
FOLLOWS = 0.1  # how far, of 1, the usual area of an object goes to that of its box in a frame
PER_OBJECT = ("descriptors", "boxes", "labels", "ids", "seen", "scores")
OPTIONAL = ("areas", "confirmed", "votes")  # per object too


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The M objects known after frame `time`, and the features that attention reads next.

    Descriptors and stored maps are on the model's device, all else on the CPU, which decides by it.

    Example:
        >>> from tubelet.models.rcnn.memory import Memory
        >>> memory = Memory(
        ...     descriptors=torch.zeros(2, 8), boxes=torch.zeros(2, 4), labels=torch.tensor([0, 1]),
        ...     ids=torch.tensor([1, 2]), seen=torch.tensor([3, 9]), scores=torch.ones(2, 5),
        ...     time=9, shot=1, shot_start=8,
        ... )
        >>> memory.elsewhere  # object 1 was last detected before the cut at frame 8
        tensor([ True, False])
    """

    descriptors: Tensor  # [M, ...] whatever the match head compares
    boxes: Tensor  # [M, 4] in input pixels
    labels: Tensor  # [M] of the first detection, never updated (the paper); with persistence or votes, of these
    ids: Tensor  # [M]
    seen: Tensor  # [M] the last frame in which each was detected
    scores: Tensor  # [M, K] class probabilities in that frame; with persistence, the best so far
    confirmed: Tensor | None = None  # [M] the last frame in which each was detected, and not weakly; None: as `seen`
    votes: Tensor | None = None  # [M, K] of all frames for its class (`naming.py`); None: frames do not vote
    areas: Tensor | None = None  # [M] of the boxes, usually: a geometric mean that follows slowly; None: not needed
    next_id: int = 1
    time: int = -1  # the last frame that was read
    size: Size | None = None  # of the input at that frame
    shot: int = 0  # of that frame
    shot_start: int = 0  # the first frame of this shot that was read
    frames: tuple[FrameFeatures, ...] = ()  # what attention reads: the last frames, or support frames
    history: History = NO_HISTORY  # what propagation starts from

    @property
    def elsewhere(self) -> Tensor:
        """Objects last detected in another shot, bool [M]."""
        return self.seen < self.shot_start

    def rows(self, ids: Tensor) -> Tensor:
        """Positions of the objects with these ids, [N]; ids ascend in memory, as objects are appended."""
        return torch.searchsorted(self.ids, ids)


def empty_memory(num_classes: int) -> Memory:
    """Return the memory at the start of a video: no objects.

    Example:
        >>> from tubelet.models.rcnn.memory import empty_memory
        >>> empty_memory(num_classes=3).scores.shape
        torch.Size([0, 3])
    """
    none = torch.zeros(0, dtype=torch.int64)
    return Memory(
        descriptors=torch.zeros(0, 0),
        boxes=torch.zeros(0, 4),
        labels=none,
        ids=none,
        seen=none,
        scores=torch.zeros(0, num_classes),
    )


def entered(memory: Memory, shot: int, time: int) -> Memory:
    """Return the memory for a frame `time` of `shot`.

    Where this is another shot than before, stored maps and history are dropped; objects stay.

    Example:
        >>> from tubelet.models.rcnn.memory import Memory, entered
        >>> none = torch.zeros(0)
        >>> memory = Memory(descriptors=none, boxes=none, labels=none, ids=none, seen=none, scores=none)
        >>> entered(memory, shot=1, time=20).shot_start
        20
    """
    if shot == memory.shot:
        return memory
    return replace(memory, shot=shot, shot_start=time, frames=(), history=NO_HISTORY)


def resized(memory: Memory, size: Size) -> Memory:
    """Return the memory for an input of `size` (height, width).

    Where the size changes, boxes are scaled with the frame; stored maps and history are dropped.

    Example:
        >>> from tubelet.models.rcnn.memory import Memory, resized
        >>> none = torch.zeros(0)
        >>> memory = Memory(
        ...     descriptors=none, boxes=torch.tensor([[10.0, 10.0, 20.0, 20.0]]),
        ...     labels=none, ids=none, seen=none, scores=none, size=(40, 60),
        ... )
        >>> resized(memory, (20, 60)).boxes
        tensor([[10.,  5., 20., 10.]])
    """
    if memory.size is None or memory.size == size:
        return replace(memory, size=size)

    height, width = size
    old_height, old_width = memory.size
    stretch = memory.boxes.new_tensor([width / old_width, height / old_height] * 2)
    areas = None if memory.areas is None else memory.areas * stretch[0] * stretch[1]
    return replace(memory, size=size, boxes=memory.boxes * stretch, areas=areas, frames=(), history=NO_HISTORY)


def forget(
    memory: Memory, time: int, keep: int | None, cut_keep: int | None = None, weak_keep: int | None = None
) -> Memory:
    """Drop objects that were not detected for too long.

    Args:
        memory: The memory before frame `time`.
        time: The current frame.
        keep: Frames without a detection after which an object is dropped; None: never. For an
            object of another shot only the frames up to the start of this shot count.
        cut_keep: The same for objects of another shot, where all frames count.
        weak_keep: Frames with weak detections alone, or none, after which an object of this shot is
            dropped; None: never.

    Example:
        >>> from tubelet.models.rcnn.memory import Memory, forget
        >>> memory = Memory(
        ...     descriptors=torch.zeros(2, 8), boxes=torch.zeros(2, 4), labels=torch.tensor([0, 1]),
        ...     ids=torch.tensor([1, 2]), seen=torch.tensor([3, 9]), scores=torch.ones(2, 5), time=9,
        ... )
        >>> forget(memory, time=10, keep=5).ids
        tensor([2])
    """
    if (keep is None and cut_keep is None and weak_keep is None) or len(memory.ids) == 0:
        return memory

    recent = torch.ones_like(memory.seen, dtype=torch.bool)
    if keep is not None:
        end = torch.where(memory.elsewhere, memory.shot_start, time)
        recent = memory.seen >= end - keep
    if cut_keep is not None:
        recent &= ~memory.elsewhere | (memory.seen >= time - cut_keep)
    if weak_keep is not None and memory.confirmed is not None:
        recent &= memory.elsewhere | (memory.confirmed >= time - weak_keep)

    if bool(recent.all()):
        return memory
    rows = recent.nonzero()[:, 0]
    present = [name for name in (*PER_OBJECT, *OPTIONAL) if getattr(memory, name) is not None]
    fields: dict[str, Any] = {name: _taken(getattr(memory, name), rows) for name in present}
    return replace(memory, **fields)


def remember(
    memory: Memory,
    descriptors: Tensor,
    found: Detections,
    decided: Tensor,
    time: int,
    persistence: float = 0.0,
    votes: Tensor | None = None,
    weak: Tensor | None = None,
    areas: bool = False,
) -> tuple[Memory, Tensor, Detections]:
    """Overwrite the entries of matched objects and append new ones.

    Args:
        memory: The memory before this frame, with M objects.
        descriptors: Of the N detections, [N, ...].
        found: The N detections of frame `time`.
        decided: For each detection the position of its object in memory, `association.NEW`, or
            `association.DROPPED`, [N].
        time: The current frame.
        persistence: Share of its class probabilities that an object keeps from frame to frame
            where the current ones are lower. 0: only the current frame counts (the paper).
        votes: Of each detection for its class, [N, K], added to those of its object; None: frames
            do not vote.
        weak: Detections that do not confirm their object, bool [N]; None: all do.
        areas: Whether the usual areas of objects are kept.

    Returns:
        The memory, and ids and detections of those that were not dropped.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Detections
        >>> from tubelet.models.rcnn.memory import Memory, remember
        >>> from tubelet.tracking.association import NEW, AssociationConfig, across_cuts, cue_scores
        >>> none = torch.zeros(0, dtype=torch.int64)
        >>> memory = Memory(
        ...     descriptors=torch.zeros(0, 8), boxes=torch.zeros(0, 4),
        ...     labels=none, ids=none, seen=none, scores=torch.zeros(0, 5),
        ... )
        >>> found = Detections(boxes=torch.zeros(2, 4), scores=torch.ones(2, 5))
        >>> memory, ids, _ = remember(memory, torch.zeros(2, 8), found, torch.tensor([NEW, NEW]), time=0)
        >>> ids, memory.next_id
        (tensor([1, 2]), 3)
    """
    matched = decided >= 0
    new = decided == NEW
    num_new = int(new.sum())
    entries = decided[matched]

    ids = torch.full_like(decided, -1)
    ids[matched] = memory.ids[entries]
    ids[new] = memory.next_id + torch.arange(num_new)

    if persistence:
        scores = found.scores.clone()
        scores[matched] = torch.maximum(scores[matched], persistence * memory.scores[entries])
        found = replace(found, scores=scores)

    # a label, like an id, is that of an object's first detection, unless its scores persist
    first = {"labels": found.labels, "ids": ids}
    updated = {
        "descriptors": descriptors,
        "boxes": found.boxes,
        "seen": torch.full_like(ids, time),
        "scores": found.scores,
    }
    if persistence:
        updated["labels"] = first.pop("labels")
    if votes is not None:
        if memory.votes is not None:
            votes = votes.index_add(0, matched.nonzero()[:, 0], memory.votes[entries])
        updated |= {"votes": votes, "labels": votes.argmax(1)}
        first.pop("labels", None)
    if weak is not None:
        updated["confirmed"] = _last_confirmed(memory.confirmed, decided, weak, time)

    if areas:
        updated["areas"] = _usual_areas(memory.areas, decided, found.boxes)

    rows = newest(decided, len(memory.ids))
    first_rows = torch.cat([torch.arange(len(memory.ids)), rows[len(memory.ids) :]])
    fields: dict[str, Any] = {}
    for name, values in (first | updated).items():
        known = getattr(memory, name)
        joined = values if known is None or len(known) == 0 else torch.cat([known, values])
        fields[name] = _taken(joined, rows if name in updated else first_rows)

    memory = replace(memory, **fields, next_id=memory.next_id + num_new)
    stored = matched | new
    return memory, ids[stored], found[stored]


def match_scores(memory: Memory, detections: Detections, logits: Tensor, config: AssociationConfig) -> Tensor:
    """Return the scores of N detections as each of the M objects in memory, [N, M + 1]; column 0 is a new object.

    Args:
        memory: With the last boxes and classes of the objects.
        detections: Of this frame.
        logits: Match logits, [N, M + 1].
        config: The weights of the cues, and what an object of another shot must reach.

    Example:
        >>> from tubelet.models.rcnn.detectors.detector import Detections
        >>> from tubelet.models.rcnn.memory import empty_memory, match_scores
        >>> from tubelet.tracking.association import AssociationConfig
        >>> found = Detections(boxes=torch.tensor([[0.0, 0.0, 4.0, 4.0]]), scores=torch.tensor([[0.25, 1.0]]))
        >>> match_scores(empty_memory(num_classes=2), found, torch.zeros(1, 1), AssociationConfig(cues=False))
        tensor([[0.]])
    """
    # boxes of another shot are no cue: the camera is elsewhere
    known_boxes = memory.boxes.masked_fill(memory.elsewhere[:, None], 0)
    labels = detections.labels
    table = cue_scores(logits, detections.confidence, detections.boxes, labels, known_boxes, memory.labels, config)
    return across_cuts(table, logits, labels, memory.labels, memory.elsewhere, config)


def newest(decided: Tensor, known: int) -> Tensor:
    """Where the newest values of each object are, in a list of those of `known` objects and then of N detections.

    Objects keep their order; new ones follow.

    Args:
        decided: As of `remember`, [N].
        known: M, the number of objects in memory.

    Example:
        >>> from tubelet.models.rcnn.memory import newest
        >>> from tubelet.tracking.association import NEW, AssociationConfig, across_cuts, cue_scores
        >>> newest(torch.tensor([NEW, 1]), known=2)  # the second object is detected again
        tensor([0, 3, 2])
    """
    rows = torch.arange(known)
    detections = known + torch.arange(len(decided))
    matched = decided >= 0
    rows[decided[matched]] = detections[matched]
    return torch.cat([rows, detections[decided == NEW]])


def _taken(values: Tensor, rows: Tensor) -> Tensor:
    """Rows of a tensor that may be on another device, such as descriptors."""
    if len(rows) == len(values) and torch.equal(rows, torch.arange(len(rows))):
        return values
    return values[rows.to(values.device)]


def _last_confirmed(past: Tensor | None, decided: Tensor, weak: Tensor, time: int) -> Tensor:
    """The last frame in which each detection's object was detected and not weakly, [N]: now, unless it is weak."""
    confirmed = torch.full_like(decided, time)
    if past is None or len(past) == 0:
        return confirmed
    is_stale = weak & (decided >= 0)
    return torch.where(is_stale, past[decided.clamp(min=0)], confirmed)


def _usual_areas(past: Tensor | None, decided: Tensor, boxes: Tensor) -> Tensor:
    """The usual area of each detection's object, [N]; in logarithms it goes a tenth of the way to the box's."""
    areas = box_ops.area(boxes.float()).clamp(min=1)
    if past is None or len(past) == 0:
        return areas
    moved = past[decided.clamp(min=0)] ** (1 - FOLLOWS) * areas**FOLLOWS
    return torch.where(decided >= 0, moved, areas)
