"""The shared types: what they refuse, what they derive, and how they are cut and joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace

import jaxtyping
import numpy as np
import pytest
import torch

from tubelet.core import masks
from tubelet.core.masks.packed import pack
from tubelet.core.types import Clip, Frame, Prediction, Track, Tracks, Video, VideoSet


def tracks(n: int = 3, t: int = 2, size: tuple[int, int] = (4, 5), num_classes: int = 3, seed: int = 0) -> Tracks:
    generator = torch.Generator().manual_seed(seed)
    return Tracks(
        ids=torch.arange(10, 10 + n),
        scores=torch.rand(n, num_classes, generator=generator),
        masks=torch.rand(n, t, *size, generator=generator),
        index=torch.arange(7, 7 + t),
    )


def clip(t: int = 2, truth: Tracks | None = None) -> Clip:
    frames = torch.zeros(t, 3, 8, 10, dtype=torch.uint8)
    return Clip(frames=frames, index=torch.arange(7, 7 + t), key=torch.ones(t, dtype=torch.bool), tracks=truth)


@pytest.fixture
def as_shipped() -> Iterator[None]:
    """Without the tests' own checker of shapes, which would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def same(first: Tracks, second: Tracks) -> bool:
    return all(torch.equal(getattr(first, f), getattr(second, f)) for f in ("ids", "scores", "masks", "index"))


# Tracks


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize("field", ["ids", "scores", "masks"])
def test_tracks_that_disagree_on_objects_say_how(field: str) -> None:
    parts = {f: getattr(tracks(), f) for f in ("ids", "scores", "masks", "index")}
    parts[field] = parts[field][:2]
    with pytest.raises(ValueError, match=r"Tracks disagree on N: ids \(\d,\), scores \(\d, 3\), masks \(\d, 2, 4, 5\)"):
        Tracks(**parts)


@pytest.mark.usefixtures("as_shipped")
def test_tracks_that_disagree_on_frames_say_how() -> None:
    whole = tracks()
    with pytest.raises(ValueError, match=r"Tracks disagree on T: masks \(3, 2, 4, 5\), index \(5,\)"):
        Tracks(ids=whole.ids, scores=whole.scores, masks=whole.masks, index=torch.arange(5))
    with pytest.raises(ValueError, match="disagree"):
        Tracks(ids=whole.ids, scores=whole.scores, masks=whole.masks[:, 0], index=whole.index)


def test_tracks_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        tracks().ids = torch.zeros(3)  # type: ignore[misc]


def test_label_and_confidence_are_the_best_class() -> None:
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.0, 0.4]])
    some = Tracks(ids=torch.arange(2), scores=scores, masks=torch.zeros(2, 1, 3, 3), index=torch.tensor([0]))
    assert some.labels.tolist() == [1, 0]
    torch.testing.assert_close(some.confidence, torch.tensor([0.7, 0.5]))


def test_boxes_and_presence_come_from_the_masks_thresholded_above_one_half() -> None:
    masks = torch.zeros(2, 2, 6, 8)
    masks[0, 0, 1:3, 2:7] = 0.51
    masks[0, 0, 5, 0] = 0.5  # not above
    masks[1, 1, 4, 3] = 1
    some = Tracks(ids=torch.arange(2), scores=torch.ones(2, 1), masks=masks, index=torch.arange(2))
    assert some.binary.dtype == torch.bool
    assert some.boxes.tolist() == [[[2, 1, 7, 3], [0, 0, 0, 0]], [[0, 0, 0, 0], [3, 4, 4, 5]]]
    assert some.present.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.float16])
def test_masks_of_any_kind_of_number_are_understood(dtype: torch.dtype) -> None:
    masks = torch.zeros(1, 1, 3, 4)
    masks[0, 0, 1, 1:3] = 1
    some = Tracks(ids=torch.tensor([1]), scores=torch.ones(1, 1), masks=masks.to(dtype), index=torch.tensor([0]))
    assert torch.equal(some.binary, masks.bool())
    assert some.boxes.tolist() == [[[1, 1, 3, 2]]]


def test_objects_are_chosen_by_mask_indices_or_slice() -> None:
    whole = tracks()
    assert len(whole) == 3
    by_mask = whole[torch.tensor([True, False, True])]
    by_index = whole[torch.tensor([0, 2])]
    by_slice = whole[::2]
    assert by_mask.ids.tolist() == [10, 12]
    assert same(by_mask, by_index)
    assert same(by_mask, by_slice)
    assert torch.equal(by_mask.index, whole.index)
    assert whole[torch.tensor([2, 0])].ids.tolist() == [12, 10]
    assert len(whole[torch.zeros(3, dtype=torch.bool)]) == 0


def test_frames_are_chosen_by_position() -> None:
    whole = tracks(t=4)
    part = whole.at(torch.tensor([3, 1]))
    assert part.index.tolist() == [10, 8]
    assert torch.equal(part.masks, whole.masks[:, [3, 1]])
    assert torch.equal(part.ids, whole.ids)
    assert same(whole.at(slice(1, 3)), whole.at(torch.tensor([1, 2])))


def test_joining_puts_objects_one_after_another() -> None:
    first, second = tracks(n=2, seed=1), tracks(n=3, seed=2)
    joined = Tracks.cat([first, second])
    assert same(joined[:2], first)
    assert same(joined[2:], second)


def test_joining_parts_of_other_frames_is_refused() -> None:
    first = tracks(t=2)
    later = Tracks(ids=first.ids, scores=first.scores, masks=first.masks, index=first.index + 1)
    with pytest.raises(ValueError, match="same frames"):
        Tracks.cat([first, later])
    with pytest.raises(ValueError, match="same frames"):
        Tracks.cat([first, tracks(t=3)])


def test_no_objects_keep_frames_classes_and_resolution() -> None:
    none = Tracks.empty(torch.tensor([4, 5]), 7, (3, 2))
    assert (len(none), none.scores.shape, none.masks.shape, none.index.tolist()) == (0, (0, 7), (0, 2, 3, 2), [4, 5])
    assert none.labels.shape == (0,)
    assert none.confidence.shape == (0,)
    assert none.boxes.shape == (0, 2, 4)
    assert none.present.shape == (0, 2)
    assert same(Tracks.cat([none, none]), none)


def test_tracks_and_clips_move_but_the_numbers_of_their_frames_stay_on_the_cpu() -> None:
    moved, bare = tracks().to("meta"), clip().to("meta")
    parts = [moved.ids, moved.scores, moved.masks, bare.frames]
    assert {part.device.type for part in parts} == {"meta"}
    assert {part.device.type for part in (moved.index, bare.index, bare.key)} == {"cpu"}
    stayed = clip(truth=tracks()).to("cpu").tracks
    assert stayed is not None
    assert same(stayed, tracks())


# Clip


def test_a_clip_knows_its_length_and_size() -> None:
    one = clip(t=4)
    assert (len(one), one.size) == (4, (8, 10))
    assert one.to("cpu").tracks is None


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize("field", ["frames", "index", "key"])
def test_a_clip_whose_parts_disagree_says_how(field: str) -> None:
    parts = {f: getattr(clip(t=3), f) for f in ("frames", "index", "key")}
    parts[field] = parts[field][:2]
    with pytest.raises(ValueError, match=r"Clip disagrees on T: frames \(\d, 3, 8, 10\), index \(\d,\), key \(\d,\)"):
        Clip(**parts)


def test_a_clip_and_its_truth_must_hold_the_same_frames() -> None:
    assert clip(t=2, truth=tracks(t=2)).tracks is not None
    for other in (tracks(t=3), tracks(t=2).at(torch.tensor([1, 0]))):
        with pytest.raises(ValueError, match="which frames"):
            clip(t=2, truth=other)


# at rest


def test_a_video_tells_times_by_its_frame_rate_or_its_own_clock() -> None:
    frames = [torch.zeros(3, 4, 4, dtype=torch.uint8)] * 3
    even = Video(id="a", size=(4, 4), frames=frames, fps=10.0)
    odd = Video(id="a", size=(4, 4), frames=frames, times=(0.0, 0.5, 0.6))
    assert (len(even), even.time(2)) == (3, pytest.approx(0.2))
    assert odd.time(1) == 0.5


def test_a_prediction_above_a_threshold_keeps_the_tracks_that_reach_it() -> None:
    some = tuple(Track(id=i, label=0, score=s, rles=(None,)) for i, s in enumerate((0.2, 0.5, 0.9)))
    whole = Prediction(video="a", size=(4, 4), length=1, tracks=some, classes=("dog",))
    assert [track.id for track in whole.above(0.5).tracks] == [1, 2]
    assert whole.above(0.5).classes == ("dog",)
    assert len(whole.tracks) == 3


def test_a_subclass_of_prediction_stays_one() -> None:
    class Richer(Prediction):
        pass

    assert type(Richer(video="a", size=(4, 4), length=0, tracks=()).above(0.5)) is Richer


def test_shapes_in_signatures_are_checked_while_tests_run() -> None:
    with pytest.raises(Exception, match="ids"):
        Frame(
            index=0,
            time=0.0,
            image=torch.zeros(3, 4, 4, dtype=torch.uint8),
            ids=torch.zeros(2, 2, dtype=torch.int64),
            labels=torch.zeros(2, dtype=torch.int64),
            scores=torch.zeros(2),
            masks=torch.zeros(2, 4, 4, dtype=torch.bool),
            boxes=torch.zeros(2, 4),
            names=("a", "b"),
        )


# printed


def test_a_track_is_printed_without_its_masks() -> None:
    rle = masks.encode(np.ones((1, 30, 40), np.uint8))[0]
    rles = (None, rle, rle)
    assert repr(Track(id=3, label=1, score=0.9123, rles=rles)) == "Track(id=3, label=1, score=0.912, frames=2 of 3)"
    (tube,) = pack([rles], (30, 40))
    assert repr(tube) == "Tube(size=(30, 40), frames=2 of 3)"
    crowd = Track(id=3, label=1, score=1.0, rles=tube, ignore=True)
    assert repr(crowd) == "Track(id=3, label=1, score=1, frames=2 of 3, ignore)"


@pytest.mark.parametrize(("num_tracks", "told"), [(0, "[]"), (1, "[{0}]"), (9, "[{0}, {1}, {2}, ... 9 in all]")])
def test_a_prediction_names_a_few_of_its_tracks(num_tracks: int, told: str) -> None:
    class Richer(Prediction):
        pass

    some = tuple(Track(id=i, label=0, score=0.5, rles=(None,)) for i in range(num_tracks))
    listed = told.format(*map(repr, some[:3]), *["-"] * 3)
    for kind in (Prediction, Richer):
        whole = kind(video="a", size=(4, 6), length=1, tracks=some)
        assert repr(whole) == f"{kind.__name__}(video='a', size=(4, 6), frames=1, tracks={listed})"


def test_what_holds_pixels_is_printed_by_shape() -> None:
    assert repr(tracks()) == "Tracks(scores (3, 3), masks (3, 2, 4, 5) float32 on cpu)"
    assert repr(clip()) == "Clip(frames (2, 3, 8, 10) uint8 on cpu, tracks=None)"
    assert repr(clip(truth=tracks())) == f"Clip(frames (2, 3, 8, 10) uint8 on cpu, tracks={tracks()})"
    frames = [torch.zeros(3, 4, 6, dtype=torch.uint8)] * 3
    video = Video(id="a", size=(4, 6), frames=frames, fps=29.97)
    assert repr(video) == "Video(id='a', size=(4, 6), frames=3, fps=29.97, tracks=unknown)"
    assert repr(replace(video, tracks=())) == "Video(id='a', size=(4, 6), frames=3, fps=29.97, tracks=0)"
    many = VideoSet(videos=[video] * 2, classes=("a", "b", "c", "d"))
    assert repr(many) == "VideoSet(videos=2, classes=['a', 'b', 'c', ... 4 in all])"
    seen = Frame(
        index=2,
        time=0.08,
        image=frames[0],
        ids=torch.tensor([1]),
        labels=torch.tensor([0]),
        scores=torch.tensor([0.5]),
        masks=torch.zeros(1, 4, 6, dtype=torch.bool),
        boxes=torch.zeros(1, 4),
        names=("dog",),
    )
    assert repr(seen) == "Frame(index=2, time=0.08, size=(4, 6), names=['dog'])"
