"""Link the objects of consecutive windows into tracks by the overlap of their masks.

Object a of the new window and track b of a stored window overlap, on their common frames, by

    s = sum(a b) / sum(a + b - a b)        over pixels and frames

s is averaged over the stored windows that contain the track. The assignment of the largest total s
links objects to tracks; an s of at most `overlap` counts as 0.

The state is the last few windows and a counter. Who receives the Tracks adds up what is averaged
over windows (masks, class probabilities), so the state does not grow with the video.

Letters: N objects of the new window, M tracks of the stored windows, T frames, K classes.
Source: clip tracking in the successors of Mask2Former-VIS (IFC); see docs/papers/ifr.md.
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
    """Settings of the linking of windows.

    Example:
        >>> from tubelet.tracking.linking import LinkingConfig
        >>> LinkingConfig(overlap=0.1, windows=2).score
        0.05
    """

    overlap: float = Field(default=0.05, ge=0, lt=1)  # a soft IoU up to this counts as 0
    score: float = Field(default=0.05, ge=0, lt=1)  # an object's best class must exceed it; for sigmoid classes
    top: int = Field(default=0, ge=0)  # queries of this many best (query, class) pairs stay whatever their scores
    windows: int | None = Field(default=None, ge=1)  # windows to store; None: as many as a window has frames
    # without a common frame, compare the last stored frame with the first new one; off: do not link
    adjacent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The state of linking: the last windows of the shot, the oldest first, and the next unused id.

    Example:
        >>> from tubelet.tracking.linking import Links
        >>> Links()  # before the first window of a video
        Links(windows=(), next_id=0, shot=0)
    """

    windows: tuple[Tracks, ...] = ()  # ids are unique in the video
    next_id: int = 0
    shot: int = 0


def are_objects(probabilities: Tensor, config: LinkingConfig, *, exclusive: bool) -> Tensor:
    """Select the queries that are objects, bool [N].

    Args:
        probabilities: Class probabilities [N, K], without "no object".
        config: The minimum score, and `top`.
        exclusive: The probabilities are from a softmax with "no object": select if the best class is
            more probable than that. Otherwise they are sigmoids: select if the best is above `score`.

    Example:
        >>> from tubelet.tracking.linking import LinkingConfig, are_objects
        >>> probabilities = torch.tensor([[0.6, 0.1], [0.2, 0.1]])
        >>> are_objects(probabilities, LinkingConfig(), exclusive=True)
        tensor([ True, False])
    """
    best = probabilities.amax(1)
    selected = best > 1 - probabilities.sum(1) if exclusive else best > config.score
    if config.top:
        pairs = probabilities.flatten().topk(min(config.top, probabilities.numel())).indices
        selected[pairs // probabilities.shape[1]] = True
    return selected


def link(state: Links, objects: Tracks, config: LinkingConfig, shot: int = 0) -> tuple[Links, Tracks]:
    """Give the objects of the next window the ids of the tracks that they continue, or new ids.

    Args:
        state: The state after the window before.
        objects: The objects of the window; their ids are ignored. Masks are probabilities, at the
            same resolution in all windows.
        config: The minimum overlap and the number of windows to store.
        shot: Number of the window's shot. In a new shot all ids are new, because masks do not
            correspond across a cut.

    Returns:
        The next state, and the objects, in the same order, with their ids.

    Example:
        >>> from tubelet.tracking.linking import LinkingConfig, Links, link
        >>> window = tubelet.Tracks(
        ...     ids=torch.tensor([0]),
        ...     scores=torch.ones(1, 1),
        ...     masks=torch.ones(1, 2, 4, 6),
        ...     index=torch.tensor([0, 1]),
        ... )
        >>> state, first = link(Links(next_id=7), window, LinkingConfig())
        >>> state, second = link(state, window, LinkingConfig())
        >>> first.ids, second.ids
        (tensor([7]), tensor([7]))
    """
    if shot != state.shot:
        state = Links(next_id=state.next_id, shot=shot)

    known_ids, overlaps = known_overlaps(state.windows, objects, adjacent=config.adjacent)
    overlaps = torch.where(overlaps > config.overlap, overlaps, 0.0)
    rows, columns = assign(-overlaps)
    matched = overlaps.cpu()[rows, columns] > 0

    ids = torch.full((len(objects),), -1)
    ids[rows[matched]] = known_ids.cpu()[columns[matched]]
    is_new = ids < 0
    next_id = state.next_id + int(is_new.sum())
    ids[is_new] = torch.arange(state.next_id, next_id)

    linked = replace(objects, ids=ids.to(objects.ids.device))
    num_windows = config.windows or len(objects.index)
    windows = (*state.windows, linked)[-num_windows:]
    return Links(windows=windows, next_id=next_id, shot=shot), linked


def known_overlaps(windows: tuple[Tracks, ...], objects: Tracks, *, adjacent: bool = True) -> tuple[Tensor, Tensor]:
    """Compute the mean soft IoU of objects with the tracks of the stored windows.

    Args:
        windows: The stored windows, the oldest first.
        objects: N objects of the new window.
        adjacent: If no window has a common frame, compare the last stored frame with the first new
            one.

    Returns:
        Ids of the tracks [M], ascending, and the overlaps [N, M].

    Example:
        >>> from tubelet.tracking.linking import known_overlaps
        >>> window = tubelet.Tracks(
        ...     ids=torch.tensor([7]),
        ...     scores=torch.ones(1, 1),
        ...     masks=torch.ones(1, 2, 4, 6),
        ...     index=torch.tensor([0, 1]),
        ... )
        >>> known_overlaps((window,), window)
        (tensor([7]), tensor([[1.]]))
    """
    compared = _compare(windows, objects, adjacent)
    if not compared:
        return objects.ids[:0], objects.masks.new_zeros(len(objects), 0, dtype=torch.float32)

    ids = torch.unique(torch.cat([window_ids for window_ids, _ in compared]))
    total = torch.zeros(len(objects), len(ids), device=ids.device)
    count = torch.zeros(len(ids), device=ids.device)
    for window_ids, overlap in compared:
        columns = torch.searchsorted(ids, window_ids)
        total[:, columns] += overlap
        count[columns] += 1
    return ids, total / count.clamp(min=1)


def _compare(windows: tuple[Tracks, ...], objects: Tracks, adjacent: bool) -> list[tuple[Tensor, Tensor]]:
    """The ids and overlaps [N, M] of each window that can be compared."""
    compared = []
    for window in windows:
        overlap = _overlap(window, objects)
        if overlap is not None:
            compared.append((window.ids, overlap))

    if not compared and windows and adjacent:
        compared.append((windows[-1].ids, _nearest(windows[-1], objects)))
    return compared


def _overlap(window: Tracks, objects: Tracks) -> Tensor | None:
    """Soft IoU [N, M] on the common frames; None if there are none."""
    common = torch.isin(objects.index, window.index)
    if not common.any():
        return None
    positions = torch.searchsorted(window.index, objects.index[common])
    return mask_iou(_flat(objects.masks[:, common]), _flat(window.masks[:, positions]))


def _nearest(window: Tracks, objects: Tracks) -> Tensor:
    """Soft IoU [N, M] of the last stored frame with the first new one."""
    return mask_iou(_flat(objects.masks[:, :1]), _flat(window.masks[:, -1:]))


def _flat(masks: Tensor) -> Tensor:
    return masks.flatten(1).float()
