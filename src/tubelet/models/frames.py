"""The tracks of single frames, one after the other, as the tracks of one clip.

Letters: N objects, T frames, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tubelet.core.types import Tracks


def join_frames(frames: Sequence[Tracks]) -> Tracks:
    """Join the tracks of T single frames into tracks of a clip of T frames, ids ascending.

    A track's scores are means over the frames in which it is; it has an empty mask in the others.

    Args:
        frames: Tracks of one frame each, of one size and at least one of them; ids are unique in each.

    Example:
        >>> from tubelet.models.frames import join_frames
        >>> from tubelet.core.types import Tracks
        >>> scores, masks = torch.ones(1, 3), torch.ones(1, 1, 4, 6)
        >>> frames = [
        ...     Tracks(ids=torch.tensor([7 + t]), scores=scores, masks=masks, index=torch.tensor([t]))
        ...     for t in range(2)
        ... ]
        >>> tracks = join_frames(frames)
        >>> tracks.ids, tracks.present
        (tensor([7, 8]), tensor([[ True, False],
                [False,  True]]))
    """
    if len(frames) == 1:
        return frames[0]

    first = frames[0]
    ids = torch.unique(torch.cat([frame.ids for frame in frames]))
    scores = first.scores.new_zeros(len(ids), first.scores.shape[1])
    count = first.scores.new_zeros(len(ids), 1)
    masks = first.masks.new_zeros(len(ids), len(frames), *first.masks.shape[2:])
    for t, frame in enumerate(frames):
        rows = torch.searchsorted(ids, frame.ids)
        scores[rows] += frame.scores
        count[rows] += 1
        masks[rows, t] = frame.masks[:, 0]
    index = torch.cat([frame.index for frame in frames])
    return Tracks(ids=ids, scores=scores / count.clamp(min=1), masks=masks, index=index)
