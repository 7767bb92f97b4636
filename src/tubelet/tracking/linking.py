"""Clip to clip: which objects of this window are those of the windows before?

Source: clip tracking of Mask2Former-VIS's descendants (IFC), read in docs/papers/ifr.md. An object a of this
window and a track b of a stored window overlap, on the frames that both windows hold, by
s = sum(a b) / sum(a + b - a b), sums over pixels and frames; s is averaged over the stored windows that hold the track,
the assignment of largest total overlap decides, and an overlap of at most `overlap` is none.
Letters: N objects of this window, M known tracks, T frames, K classes.

The state is the last few windows and a counter. What must be averaged over windows (masks, class probabilities) is
summed up by whoever takes the Tracks, so nothing here grows with the video.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from tubelet.core.config import Config
from tubelet.core.matching import assign, mask_iou
from tubelet.core.types import Tracks


class LinkingConfig(Config):
    """When an object of a window is one of the windows before."""

    overlap: float = Field(default=0.05, ge=0, lt=1)  # soft overlap up to this is none
    score: float = Field(default=0.05, ge=0, lt=1)  # an object's best class is above, where no class stands for "none"
    top: int = Field(default=0, ge=0)  # what holds one of so many best (query, class) pairs stays, whatever its score
    windows: int | None = Field(default=None, ge=1)  # how many are remembered; None: as many as a window has frames
    adjacent: bool = True  # windows without a common frame are compared at their nearest two; off: nothing is linked


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The last windows of a shot with ids global to the video, the oldest first, and the next id that is free."""

    windows: tuple[Tracks, ...] = ()
    next_id: int = 0
    shot: int = 0


def are_objects(probabilities: Tensor, config: LinkingConfig, *, exclusive: bool) -> Tensor:
    """Which of N queries with class probabilities [N, K] stay, bool [N].

    `exclusive`: the K probabilities and that of "no object" sum to one (softmax), and the best must be an object's;
    otherwise (a sigmoid for each class, no such column) the best must be above `score`.
    """
    best = probabilities.amax(1)
    keep = best > 1 - probabilities.sum(1) if exclusive else best > config.score
    if config.top:
        pairs = probabilities.flatten().topk(min(config.top, probabilities.numel())).indices
        keep[pairs // probabilities.shape[1]] = True
    return keep


def link(state: Links, found: Tracks, config: LinkingConfig, shot: int = 0) -> tuple[Links, Tracks]:
    """The objects of the next window, in their order, with the ids of the tracks they continue or new ones.

    The ids that come in say nothing. Masks are probabilities at one resolution throughout the video. In another `shot`
    than the windows before, all ids are new: overlap says nothing across a cut.
    """
    if shot != state.shot:
        state = Links(next_id=state.next_id, shot=shot)
    ids, overlaps = known_overlaps(state.windows, found, adjacent=config.adjacent)
    overlaps = torch.where(overlaps > config.overlap, overlaps, 0.0)
    rows, columns = assign(-overlaps)
    matched = overlaps.cpu()[rows, columns] > 0
    chosen = torch.full((len(found),), -1)
    chosen[rows[matched]] = ids.cpu()[columns[matched]]
    fresh = chosen < 0
    chosen[fresh] = torch.arange(state.next_id, state.next_id + int(fresh.sum()))
    linked = replace(found, ids=chosen.to(found.ids.device))
    kept = config.windows or len(found.index)
    windows = (*state.windows, linked)[-kept:]
    return Links(windows=windows, next_id=state.next_id + int(fresh.sum()), shot=shot), linked


def known_overlaps(windows: tuple[Tracks, ...], found: Tracks, *, adjacent: bool = True) -> tuple[Tensor, Tensor]:
    """Ids [M] of the tracks in the stored windows, ascending, and their mean soft overlaps [N, M] with the objects."""
    compared = [(window.ids, overlap) for window in windows if (overlap := _overlap(window, found)) is not None]
    if not compared and windows and adjacent:
        compared = [(windows[-1].ids, _nearest(windows[-1], found))]
    if not compared:
        return found.ids[:0], found.masks.new_zeros(len(found), 0, dtype=torch.float32)
    ids = torch.unique(torch.cat([known for known, _ in compared]))
    total = torch.zeros(len(found), len(ids), device=ids.device)
    count = torch.zeros(len(ids), device=ids.device)
    for known, overlap in compared:
        places = torch.searchsorted(ids, known)
        total[:, places] += overlap
        count[places] += 1
    return ids, total / count.clamp(min=1)


def _overlap(window: Tracks, found: Tracks) -> Tensor | None:
    """Soft overlap [N, M] on the common frames; None where there is none."""
    common = torch.isin(found.index, window.index)
    if not common.any():
        return None
    there = torch.searchsorted(window.index, found.index[common])
    return mask_iou(_flat(found.masks[:, common]), _flat(window.masks[:, there]))


def _nearest(window: Tracks, found: Tracks) -> Tensor:
    """Soft overlap [N, M] of the last stored frame with the first of this window."""
    return mask_iou(_flat(found.masks[:, :1]), _flat(window.masks[:, -1:]))


def _flat(masks: Tensor) -> Tensor:
    return masks.flatten(1).float()
