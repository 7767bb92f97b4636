"""Signed distances: the same object at the same place, and an outline that moves between two frames."""

from __future__ import annotations

import numpy as np
import torch

from tubelet.core.types import Tracks
from tubelet.inference.stitch import Stitcher
from tubelet.models.tags.interpolation import as_distances


def square(left: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, 24, 48)
    mask[..., 8:16, left : left + 8] = 0.9
    return mask


def test_a_mask_covers_the_same_cells_as_before() -> None:
    masks = torch.rand(3, 2, 9, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(as_distances(masks) > 0.5, masks > 0.5)


def test_empty_and_full_masks_stay_empty_and_full() -> None:
    assert bool((as_distances(torch.zeros(1, 1, 4, 6)) == 0).all())
    assert bool((as_distances(torch.ones(1, 1, 4, 6)) > 0.5).all())
    assert as_distances(torch.zeros(0, 3, 4, 6)).shape == (0, 3, 4, 6)


def middle(first: torch.Tensor, last: torch.Tensor, average: str) -> np.ndarray:
    """The object in frame 1, interpolated between frames 0 and 2."""
    stitcher = Stitcher((24, 48), average)  # type: ignore[arg-type]
    for t, mask in ((0, first), (2, last)):
        ids = torch.tensor([0])
        stitcher.add(Tracks(ids=ids, scores=torch.ones(1, 1), masks=mask, index=torch.tensor([t])))
    frames = list(stitcher.rest())
    return frames[1].masks[0] if len(frames[1].masks) else np.zeros((24, 48), bool)


def test_between_two_frames_the_outline_moves_where_a_blend_keeps_the_overlap_alone() -> None:
    expected = square(12)[0, 0].numpy() > 0.5
    moved = middle(as_distances(square(10)), as_distances(square(14)), "logits")
    blended = middle(square(10), square(14), "probabilities")

    def overlap(mask: np.ndarray) -> float:
        return float((mask & expected).sum() / (mask | expected).sum())

    assert overlap(moved) > 0.9
    assert overlap(moved) > overlap(blended) + 0.2
