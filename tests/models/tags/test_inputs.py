"""Frames and truth on their way into the network: sizes of all kinds, overlaps, crowds, repeated frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tubelet.core.types import Clip, Tracks
from tubelet.models.tags.inputs import IGNORED, NOTHING, draw_truth, prepare, upright


def clip_of(masks: torch.Tensor, scores: torch.Tensor | None = None, key: list[bool] | None = None) -> Clip:
    """A grey clip with these masks [N, T, H, W]."""
    count, frames, *size = masks.shape
    index = torch.arange(frames)
    scores = torch.eye(3)[torch.arange(count) % 3] if scores is None else scores
    tracks = Tracks(ids=torch.arange(count), scores=scores, masks=masks, index=index)
    grey = torch.full((frames, 3, *size), 128, dtype=torch.uint8)
    return Clip(frames=grey, index=index, key=torch.tensor(key or [True] * frames), tracks=tracks)


def rectangle(rows: slice, columns: slice, frames: int = 1, size: tuple[int, int] = (8, 12)) -> torch.Tensor:
    mask = torch.zeros(frames, *size, dtype=torch.uint8)
    mask[:, rows, columns] = 1
    return mask


@pytest.mark.parametrize("frame", [(1, 1), (37, 53), (480, 854), (854, 480), (64, 64)])
def test_any_frame_becomes_the_networks_size_and_an_upright_one_stands(frame: tuple[int, int]) -> None:
    pixels = prepare(torch.zeros(2, 3, *frame, dtype=torch.uint8), (48, 80))
    expected = (80, 48) if frame[0] > frame[1] else (48, 80)
    assert pixels.shape == (3, 2, *expected)
    assert upright((64, 64), frame) == (64, 64)


def test_pixels_are_normalised_as_for_kinetics() -> None:
    white = prepare(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8), (32, 32))[:, 0, 0, 0]
    assert white.tolist() == pytest.approx(
        [(1 - 0.43216) / 0.22803, (1 - 0.394666) / 0.22145, (1 - 0.37645) / 0.216989]
    )


def test_an_overlap_is_the_smaller_objects() -> None:
    large, small = rectangle(slice(0, 8), slice(0, 10)), rectangle(slice(2, 4), slice(3, 6))
    for masks, wanted in (([large, small], 1), ([small, large], 0)):
        owners = draw_truth(clip_of(torch.stack(masks)), (8, 12)).owners
        assert (owners[0, 2:4, 3:6] == wanted).all()
        assert owners[0, 0, 0] == 1 - wanted
        assert owners[0, 0, 11] == NOTHING


def test_an_object_that_others_cover_wholly_is_nowhere() -> None:
    same = rectangle(slice(0, 4), slice(0, 4))
    owners = draw_truth(clip_of(torch.stack([same, same, same])), (8, 12)).owners
    assert len(owners[owners >= 0].unique()) == 1


def test_a_crowd_is_ignored_and_lies_behind_objects() -> None:
    crowd, thing = rectangle(slice(0, 8), slice(0, 2)), rectangle(slice(0, 8), slice(1, 12))
    scores = torch.tensor([[0.0, 0, 0], [0, 1, 0]])
    truth = draw_truth(clip_of(torch.stack([crowd, thing]), scores), (8, 12))
    assert truth.owners[0, 0].tolist() == [IGNORED] + [1] * 11
    assert int(truth.labels[1]) == 1


def test_frames_that_are_not_to_be_predicted_are_ignored() -> None:
    clip = clip_of(rectangle(slice(0, 4), slice(0, 4), frames=3)[None], key=[True, True, False])
    owners = draw_truth(clip, (8, 12)).owners
    assert (owners[2] == IGNORED).all()
    assert (owners[:2] != IGNORED).all()


def test_a_clip_without_objects_is_background() -> None:
    assert (draw_truth(clip_of(torch.zeros(0, 2, 8, 12)), (4, 6)).owners == NOTHING).all()


def test_truth_shrinks_to_the_tags() -> None:
    clip = clip_of(rectangle(slice(0, 4), slice(0, 6))[None])
    assert draw_truth(clip, (4, 6)).owners[0].tolist() == [[0, 0, 0, -1, -1, -1]] * 2 + [[-1] * 6] * 2


def test_more_objects_than_a_byte_counts_keep_their_numbers() -> None:
    masks = torch.zeros(300, 1, 20, 20, dtype=torch.bool)
    for n in range(300):
        masks[n, 0, n // 20, n % 20] = True
    clip = clip_of(masks)
    assert draw_truth(replace(clip, index=clip.index), (20, 20)).owners[0].flatten()[:300].tolist() == list(range(300))
