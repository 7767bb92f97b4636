"""The tracks of single frames as those of a clip."""

from __future__ import annotations

import torch

from tubelet.core.types import Tracks
from tubelet.models.frames import join_frames


def frame(t: int, **scores: float) -> Tracks:
    """`_7=0.5`: object 7 with this score; its mask is full of its number of tenths."""
    ids = [int(name[1:]) for name in scores]
    return Tracks(
        ids=torch.tensor(ids, dtype=torch.int64),
        scores=torch.tensor(list(scores.values())).view(-1, 1),
        masks=torch.stack([torch.full((1, 2, 3), id / 10) for id in ids]) if ids else torch.zeros(0, 1, 2, 3),
        index=torch.tensor([t]),
    )


def test_one_frame_stays_as_it_is() -> None:
    alone = frame(5, _7=0.5, _2=0.9)
    assert join_frames([alone]) is alone


def test_scores_are_means_over_the_frames_in_which_an_object_is_and_masks_are_empty_elsewhere() -> None:
    joined = join_frames([frame(3, _7=0.5, _2=0.9), frame(4), frame(6, _7=0.7)])
    assert joined.ids.tolist() == [2, 7]
    assert joined.index.tolist() == [3, 4, 6]
    torch.testing.assert_close(joined.scores, torch.tensor([[0.9], [0.6]]))
    assert joined.masks.amax((2, 3)).tolist() == torch.tensor([[0.2, 0.0, 0.0], [0.7, 0.0, 0.7]]).tolist()


def test_frames_without_objects_give_no_tracks() -> None:
    joined = join_frames([frame(0), frame(1)])
    assert (len(joined), joined.masks.shape) == (0, (0, 2, 2, 3))
