"""The stitcher against whole-frame interpolation, and the arithmetic of scores, classes and overlapping windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core import boxes
from tubelet.core.masks import decode
from tubelet.core.types import Tracks
from tubelet.inference.stitch import Finished, Stitcher
from tubelet.inference.tallies import Ledger, Tally


def tracks(
    masks: torch.Tensor, start: int = 0, ids: list[int] | None = None, scores: torch.Tensor | None = None
) -> Tracks:
    count, length = masks.shape[:2]
    return Tracks(
        ids=torch.tensor(ids if ids is not None else list(range(count)), dtype=torch.int64),
        scores=torch.full((count, 2), 0.5) if scores is None else scores,
        masks=masks,
        index=torch.arange(start, start + length),
    )


def stitched(size: tuple[int, int], *parts: Tracks, length: int) -> list[Finished]:
    stitcher = Stitcher(size)
    for part in parts:
        stitcher.add(part)
    return list(stitcher.release(length))


def interpolated(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(masks, size, mode="bilinear", align_corners=False)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=60, deadline=None)
@given(small=sizes, large=sizes, seed=st.integers(0, 2**32 - 1), level=st.floats(0.05, 0.95))
def test_resizing_only_near_the_object_equals_interpolating_the_whole_frame(
    small: tuple[int, int], large: tuple[int, int], seed: int, level: float
) -> None:
    rng = np.random.default_rng(seed)
    blobs = F.avg_pool2d(torch.from_numpy(rng.random((3, 1, small[0] + 2, small[1] + 2))), 3, stride=1)
    masks = (blobs - 0.5 + level).float().clamp(0, 1)
    whole = interpolated(masks, large)[:, 0]
    (frame,) = stitched(large, tracks(masks), length=1)
    found = torch.zeros(whole.shape, dtype=torch.bool)
    found[torch.from_numpy(frame.ids)] = torch.from_numpy(frame.masks)
    # a value that rounding can carry over the threshold is not held against either
    decided = (whole - 0.5).abs() > 1e-6
    assert torch.equal(found[decided], (whole > 0.5)[decided])


def test_boxes_are_tight_around_the_finished_masks() -> None:
    rng = np.random.default_rng(0)
    masks = torch.from_numpy((rng.random((4, 1, 9, 12)) > 0.8).astype(np.float32))
    (frame,) = stitched((31, 47), tracks(masks), length=1)
    assert np.array_equal(frame.boxes, boxes.from_masks(torch.from_numpy(frame.masks)).numpy())


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.float16, torch.bfloat16])
def test_a_mask_at_the_size_of_the_frame_passes_through_unchanged(dtype: torch.dtype) -> None:
    mask = torch.zeros(1, 1, 6, 8)
    mask[0, 0, 2:4, 3:7] = 1
    (frame,) = stitched((6, 8), tracks(mask.to(dtype)), length=1)
    assert np.array_equal(frame.masks[0], mask[0, 0].numpy() > 0)


def test_exactly_one_half_is_outside() -> None:
    assert stitched((2, 2), tracks(torch.full((1, 1, 2, 2), 0.5)), length=1)[0].ids.size == 0


def test_a_mask_that_is_not_a_number_is_absent() -> None:
    assert stitched((4, 4), tracks(torch.full((1, 1, 2, 2), float("nan"))), length=1)[0].ids.size == 0


def test_overlapping_windows_are_averaged_before_the_threshold() -> None:
    first, second = torch.tensor([0.9, 0.6, 0.45]), torch.tensor([0.3, 0.2, 0.6])
    parts = [tracks(p.reshape(1, 1, 1, 3), start=5) for p in (first, second)]
    (frame,) = stitched((1, 3), *parts, length=6)[5:]
    assert frame.masks[0, 0].tolist() == [True, False, True]  # means 0.6, 0.4, 0.525


def test_class_probabilities_of_overlapping_windows_are_averaged() -> None:
    mask = torch.ones(1, 1, 2, 2)
    parts = [tracks(mask, scores=torch.tensor([row])) for row in ([0.9, 0.1], [0.3, 0.5])]
    (frame,) = stitched((2, 2), *parts, length=1)
    assert frame.scores[0] == pytest.approx([0.6, 0.3])


def test_an_identity_that_one_of_two_windows_holds_keeps_that_window_s_mask() -> None:
    mask = torch.full((1, 1, 2, 2), 0.8)
    other = torch.full((1, 1, 2, 2), 0.8)
    (frame,) = stitched((2, 2), tracks(mask, ids=[3]), tracks(other, ids=[4]), length=1)
    assert frame.ids.tolist() == [3, 4]
    assert frame.masks.all()


def test_windows_of_other_resolutions_cannot_be_averaged() -> None:
    stitcher = Stitcher((4, 4))
    stitcher.add(tracks(torch.ones(1, 1, 2, 2)))
    with pytest.raises(ValueError, match=r"overlapping windows disagree on mask size: \(2, 2\) and \(3, 3\)"):
        stitcher.add(tracks(torch.ones(1, 1, 3, 3)))


def test_released_frames_are_forgotten() -> None:
    stitcher = Stitcher((4, 4))
    for t in range(50):
        stitcher.add(tracks(torch.ones(1, 4, 2, 2), start=t))
        released = list(stitcher.release(t + 1))
        assert [frame.index for frame in released] == [t]
        assert len(stitcher._overlaps.pending) <= 4


def test_frames_between_spread_ones_are_blended_and_those_outside_are_copied() -> None:
    left, right = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2), torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    masks = torch.cat([left, right], dim=1)
    spread = Tracks(ids=torch.tensor([0]), scores=torch.tensor([[0.2, 0.6]]), masks=masks, index=torch.tensor([2, 6]))
    frames = stitched((1, 2), spread, length=9)
    shown = [frame.masks[0, 0].tolist() if frame.ids.size else None for frame in frames]
    before, after = [True, False], [False, True]
    assert shown == [before, before, before, before, None, after, after, after, after]
    assert all(frame.scores[0] == pytest.approx([0.2, 0.6]) for frame in frames if frame.ids.size)


def test_an_object_that_one_spread_neighbour_lacks_fades_halfway() -> None:
    here = Tracks(ids=torch.tensor([7]), scores=torch.ones(1, 2), masks=torch.ones(1, 1, 2, 2), index=torch.tensor([0]))
    gone = Tracks.empty(torch.tensor([4]), 2, (2, 2))
    frames = stitched((2, 2), here, gone, length=5)
    assert [frame.ids.tolist() for frame in frames] == [[7], [7], [], [], []]


def test_a_video_without_any_object_has_frames_without_any() -> None:
    frames = stitched((3, 5), Tracks.empty(torch.arange(2), 4, (3, 5)), length=2)
    assert [frame.masks.shape for frame in frames] == [(0, 3, 5)] * 2


def test_a_track_s_score_is_the_mean_over_the_frames_where_it_appears() -> None:
    tally = Tally()
    for confidence in (0.2, 0.8):
        tally.add(np.array([confidence, 0.0]))
    assert tally.score == 0.5


@pytest.mark.parametrize(
    ("labels", "winner"),
    [((3, 3, 7), 3), ((7, 3), 3), ((7, 3, 7), 7), ((2,), 2)],
)
def test_the_class_is_the_majority_s_and_a_tie_goes_to_the_smaller(labels: tuple[int, ...], winner: int) -> None:
    tally = Tally()
    for label in labels:
        tally.add(np.eye(8)[label])
    assert tally.label("majority") == winner


def test_voting_by_score_weighs_each_frame_with_its_confidence() -> None:
    tally = Tally()
    for row in ([0.3, 0.0], [0.3, 0.0], [0.0, 0.9]):
        tally.add(np.array(row))
    assert (tally.label("majority"), tally.label("score")) == (0, 1)


def test_the_ledger_keeps_what_was_finished() -> None:
    rng = np.random.default_rng(1)
    masks = torch.from_numpy((rng.random((3, 5, 6, 9)) > 0.6).astype(np.float32))
    masks[1, 2] = 0
    ledger = Ledger()
    for frame in stitched((6, 9), tracks(masks, ids=[4, 2, 9]), length=5):
        ledger.add(frame)
    kept = ledger.tracks(6)
    assert [track.id for track in kept] == [2, 4, 9]
    by_id = {track.id: track for track in kept}
    assert by_id[2].rles[2] is None
    assert all(track.rles[5] is None for track in kept)
    for n, identity in enumerate([4, 2, 9]):
        for t in range(5):
            rle = by_id[identity].rles[t]
            if rle is not None:
                assert np.array_equal(decode([rle])[0], masks[n, t].numpy())


def test_tracks_that_appear_too_rarely_are_dropped() -> None:
    masks = torch.ones(2, 3, 2, 2)
    masks[0, 1:] = 0
    ledger = Ledger()
    for frame in stitched((2, 2), tracks(masks), length=3):
        ledger.add(frame)
    assert [track.id for track in ledger.tracks(3, min_frames=2)] == [1]
    assert [track.id for track in ledger.tracks(3)] == [0, 1]
