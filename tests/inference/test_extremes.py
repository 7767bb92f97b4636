"""Answers and videos at the limits: not finite, half precision, one pixel, many objects and classes, odd clocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tubelet
from clips import write_clip
from toy import Seen, Toy, moving_patches
from tubelet.core.errors import WeightsError
from tubelet.core.types import Clip, Tracks
from tubelet.inference.predict import predict, stream

Change = Callable[[Tracks], Tracks]


class Changed(Toy):
    """The toy with other answers."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        state, tracks = super().step(state, clip)
        return state, self.change(tracks)


class Crowded(Toy):
    """Finds 500 objects of 1,000 classes."""

    classes = tuple(f"class {n}" for n in range(1000))

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        index = clip.index[clip.key]
        masks = torch.zeros(500, len(index), 24, 32)
        scores = torch.full((500, 1000), 1e-5)
        for n in range(500):
            masks[n, :, n // 32, n % 32] = 1
            scores[n, 2 * n] = 0.9
        return state, Tracks(ids=torch.arange(500), scores=scores, masks=masks, index=index)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_said_at_once(value: float) -> None:
    model = Changed(lambda tracks: replace(tracks, scores=torch.full_like(tracks.scores, value)))
    for run in (predict, lambda *given: list(stream(*given))):
        with pytest.raises(WeightsError, match="scores in frame 0 are not finite"):
            run(model, moving_patches(2))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), -1e38, 0.0])
def test_masks_without_a_pixel_are_absent_objects(value: float) -> None:
    model = Changed(lambda tracks: replace(tracks, masks=torch.full_like(tracks.masks, value)))
    assert predict(model, moving_patches(2)).tracks == ()


def test_a_mask_may_cover_the_whole_frame() -> None:
    model = Changed(lambda tracks: replace(tracks, masks=torch.ones_like(tracks.masks)))
    for track in predict(model, moving_patches(2)).tracks:
        assert all(track.mask(t).all() for t in range(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_answers_in_half_precision_have_the_masks_of_single(dtype: torch.dtype) -> None:
    model = Changed(lambda tracks: replace(tracks, scores=tracks.scores.to(dtype), masks=tracks.masks.to(dtype)))
    half = predict(model, moving_patches(3))
    single = predict(Toy(), moving_patches(3))
    assert [track.rles for track in half.tracks] == [track.rles for track in single.tracks]
    assert [track.score for track in half.tracks] == pytest.approx([0.9, 0.9], abs=2**-8)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_frames_of_a_pixel_or_a_line_are_segmented_and_drawn(size: tuple[int, int], tmp_path: Path) -> None:
    red = np.zeros((2, *size, 3), np.uint8)
    red[..., 0] = 255
    prediction = predict(Toy(shrink=1), red)
    assert [track.mask(1).all() for track in prediction.tracks] == [True]
    prediction.save(tmp_path)
    assert tubelet.open_prediction(tmp_path).tracks == prediction.tracks


def test_500_objects_of_1000_classes_are_saved_drawn_and_read_back(tmp_path: Path) -> None:
    prediction = predict(Crowded(), np.zeros((2, 48, 64, 3), np.uint8))
    assert [track.label for track in prediction.tracks] == list(range(0, 1000, 2))
    prediction.save(tmp_path)
    again = tubelet.open_prediction(tmp_path)
    assert [(track.id, track.rles) for track in again.tracks] == [(track.id, track.rles) for track in prediction.tracks]
    assert again.classes == Crowded.classes


@pytest.mark.parametrize(
    ("times", "fps"),
    [
        ((0.0, 1.0, 2.0, 3.0), 1),
        (tuple(n / 250 for n in range(8)), 250),
        ((0.0, 0.04, 3600.0, 3600.04), 3 / 3600.04),
    ],
    ids=["slow", "fast", "a clock that jumps an hour"],
)
def test_frames_keep_their_times_at_any_rate(times: Sequence[float], fps: float, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "film.mkv", numbers=range(len(times)), times=times, b_frames=0)
    prediction = predict(Toy(), path)
    assert [prediction.source.time(t) for t in range(len(times))] == pytest.approx(times)
    assert prediction.source.fps == pytest.approx(fps)
    prediction.save(tmp_path / "out")
    drawn = tubelet.open_video(tmp_path / "out" / "overlay.mp4")
    assert len(drawn) == len(times)
    assert drawn.time(len(times) - 1) == pytest.approx(times[-1], abs=2e-3)
