from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.masks import RLE
from tubelet.core.types import Track, Video, VideoSet
from tubelet.data.tools.checking import check, iou, shared
from tubelet.formats.lazy import MappedVideos

SIZE = (20, 30)


def square(x: int, y: int, side: int = 5, size: tuple[int, int] = SIZE) -> RLE:
    mask = np.zeros((1, *size), bool)
    mask[0, y : y + side, x : x + side] = True
    return masks.encode(mask)[0]


def track(number: int, *rles: RLE | None, label: int = 0, ignore: bool = False) -> Track:
    return Track(id=number, label=label, score=1.0, rles=rles, ignore=ignore)


def a_set(*tracks: Track, frames: list | None = None) -> VideoSet:
    length = len(frames or ()) or 3
    frames = frames or [torch.zeros(3, *SIZE, dtype=torch.uint8)] * length
    return VideoSet(videos=[Video(id="v", size=SIZE, frames=frames, tracks=tracks)], classes=("a", "b"))


def kinds(videos: VideoSet) -> list[str]:
    return [finding.kind for finding in check(videos, frames=None).findings]


GOOD = track(1, square(1, 1), square(2, 1), square(3, 1))


def test_a_good_set_is_fit_and_has_no_findings(generated):
    report = check(generated)
    assert report.fit
    assert [f for f in report.findings if f.grade == "fatal"] == []
    assert check(a_set(GOOD)).findings == []


def test_a_set_without_objects_is_not_fit():
    report = check(a_set(track(1, None, None, None, ignore=True)))
    assert not report.fit
    assert "video without an object" in [finding.kind for finding in report.findings]


class Broken(list):
    def __getitem__(self, t):
        raise InputError("frame.jpg: not an image")


@pytest.mark.parametrize(
    ("videos", "kind"),
    [
        (a_set(GOOD, frames=Broken([0, 0, 0])), "broken frame"),
        (a_set(GOOD, frames=[torch.zeros(3, 30, 20, dtype=torch.uint8)] * 3), "wrong size"),
        (a_set(GOOD, replace(GOOD, rles=(None, square(20, 10), None))), "id used twice"),
        (a_set(replace(GOOD, label=2)), "unknown class"),
        (a_set(track(1, square(1, 1))), "wrong length"),
        (a_set(track(1, square(1, 1), None, square(1, 1, size=(30, 20)))), "wrong mask size"),
    ],
)
def test_what_would_stop_or_mislead_a_training_is_fatal(videos, kind):
    report = check(videos, frames=None)
    assert kind in [finding.kind for finding in report.findings if finding.grade == "fatal"]
    assert not report.fit


def test_a_video_that_cannot_be_read_is_reported_and_the_others_are_checked():
    good = a_set(GOOD)

    def spoil(video: Video) -> Video:
        raise FormatError("file.json: video 2: broken")

    videos = replace(good, videos=[*good.videos, *MappedVideos(good.videos, lambda v: v)])
    spoilt = replace(good, videos=MappedVideos(videos.videos, lambda v: v if v is videos.videos[0] else spoil(v)))
    spoilt.videos.videos = [videos.videos[0], replace(videos.videos[1], id="other")]
    report = check(spoilt)
    assert [(f.kind, f.detail) for f in report.findings] == [("broken annotation", "file.json: video 2: broken")]
    assert report.objects == 1
    assert not report.fit


def test_odd_masks_are_named_with_frame_and_object():
    empty = masks.encode(np.zeros((1, *SIZE), bool))[0]
    report = check(a_set(GOOD, track(2, None, empty, None), track(3, None, None, None)))
    assert report.fit
    found = [(f.kind, f.object, f.frame) for f in report.findings]
    assert ("empty mask", 2, 1) in found
    assert ("object without a mask", 3, None) in found


def test_overlapping_objects_are_found_once_per_frame():
    inside = track(2, square(1, 1, 3), None, square(20, 10))
    findings = check(a_set(GOOD, inside)).findings
    assert [(f.kind, f.frame, f.object) for f in findings] == [("overlap", 0, 1)]
    assert "100% of the smaller is shared with object 2" in findings[0].detail


def test_ids_that_change_places_are_found_and_crossing_objects_are_not():
    left, right = square(1, 1), square(20, 10)
    swapped = a_set(track(1, left, left, right), track(2, right, right, left))
    findings = check(swapped).findings
    assert [(f.kind, f.frame, f.object) for f in findings] == [("id jumps", 1, 1), ("id jumps", 1, 2)]
    other_class = a_set(track(1, left, left, right), track(2, right, right, left, label=1))
    assert "id jumps" not in kinds(other_class)
    crossing = a_set(
        track(1, square(1, 1), square(4, 1), square(7, 1)), track(2, square(7, 8), square(4, 8), square(1, 8))
    )
    assert kinds(crossing) == []


def test_a_leap_is_more_than_three_times_the_objects_size():
    far, near = square(25, 1, 2), square(5, 1, 2)
    assert kinds(a_set(track(1, square(1, 1, 2), far, far))) == ["leap"]
    assert kinds(a_set(track(1, square(1, 1, 2), near, near))) == []


def test_only_as_many_frames_are_decoded_as_asked_for():
    assert check(a_set(GOOD), frames=2).frames_decoded == 2
    assert check(a_set(GOOD), frames=None).frames_decoded == 3
    assert check(a_set(GOOD), frames=99).frames_decoded == 3


def test_the_decoded_frames_are_spread_over_the_video_and_a_single_one_is_its_middle():
    wrong = torch.zeros(3, 30, 20, dtype=torch.uint8)
    long = track(1, *[square(1, 1)] * 10)
    videos = a_set(long, frames=[wrong] * 10)
    assert [finding.frame for finding in check(videos, frames=3).findings] == [0, 5, 9]
    assert [finding.frame for finding in check(videos, frames=1).findings] == [5]


def test_pairwise_overlaps_are_those_of_the_pixels():
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 9, 7)) < 0.5, rng.random((4, 9, 7)) < 0.4
    both = (first[:, None] & second[None]).sum((2, 3))
    union = (first[:, None] | second[None]).sum((2, 3))
    codes = masks.encode(first), masks.encode(second)
    assert np.allclose(iou(*codes), both / union)
    assert np.allclose(shared(*codes), both)
