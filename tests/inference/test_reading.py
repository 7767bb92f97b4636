"""Windows end at cuts and begin with shots; without a cut they are those of the video room."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from edited import scene
from tubelet.core.errors import InputError
from tubelet.core.protocol import Window
from tubelet.core.types import Video
from tubelet.inference.reading import find_shots, listen, read
from tubelet.tracking.shots import ShotConfig
from tubelet.video.live import LiveVideo
from tubelet.video.reader import open_video
from tubelet.video.windows import windows

CUTS = ShotConfig()
WINDOWS = [
    Window(),
    Window(length=4, stride=4),
    Window(length=5, stride=2),
    Window(length=3, stride=1),
    Window(length=None),
    Window(length=2, stride=2, context=3),
    Window(length=1, context=2, causal=True),
    Window(length=3, spread=True),
]


def edited(*lengths: int) -> Video:
    return open_video(np.concatenate([scene(seed, length) for seed, length in enumerate(lengths)]))


def live(video: Video) -> LiveVideo:
    return LiveVideo("test", ((t / 10, frame) for t, frame in enumerate(video.frames)), waits=True)


@pytest.mark.parametrize("cuts", [None, CUTS])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_without_a_cut_nothing_changes(window: Window, cuts: ShotConfig | None) -> None:
    video = edited(11)
    steps = list(read(video, window, cuts))
    for step, clip in zip(steps, windows(video, window), strict=True):
        assert torch.equal(step.clip.frames, clip.frames)
        assert torch.equal(step.clip.index, clip.index)
        assert torch.equal(step.clip.key, clip.key)
        assert step.clip.shot == 0
    following = [int(step.clip.index[step.clip.key][0]) for step in steps[1:]] + [11]
    assert [step.settled for step in steps] == following


@pytest.mark.parametrize("window", WINDOWS[:-1], ids=str)
def test_every_window_lies_within_one_shot_and_every_frame_in_one_of_them(window: Window) -> None:
    video, shot_of = edited(7, 1, 6), [0] * 7 + [1] + [2] * 6
    steps = list(read(video, window, CUTS))
    for step in steps:
        assert {shot_of[t] for t in step.clip.index.tolist()} == {step.clip.shot}
        assert torch.equal(step.clip.frames, torch.stack([video.frames[t] for t in step.clip.index.tolist()]))
        assert step.times == [video.time(t) for t in step.clip.index.tolist()]
    predicted = [step.clip.index[step.clip.key].tolist() for step in steps]
    assert sorted({t for frames in predicted for t in frames}) == list(range(14))
    for step, later in pairwise(steps):
        assert step.settled <= int(later.clip.index[later.clip.key][0])
    assert steps[-1].settled == 14


def test_a_window_is_cut_short_by_a_cut_and_the_next_begins_with_the_shot() -> None:
    steps = read(edited(6, 9), Window(length=4, stride=3), CUTS)
    assert [step.clip.index.tolist() for step in steps] == [
        [0, 1, 2, 3],
        [3, 4, 5],
        [6, 7, 8, 9],
        [9, 10, 11, 12],
        [11, 12, 13, 14],
    ]


def test_a_cut_right_after_a_window_leaves_no_rest() -> None:
    steps = read(edited(4, 4), Window(length=4, stride=2), CUTS)
    assert [step.clip.index.tolist() for step in steps] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_live_source_is_read_alike_but_for_its_end() -> None:
    video, window = edited(6, 9), Window(length=4, stride=3)
    steps = [step.clip.index.tolist() for step in listen(iter(live(video)), window, CUTS)]
    assert steps[:4] == [step.clip.index.tolist() for step in read(video, window, CUTS)][:4]
    assert steps[4:] == [[12, 13, 14]]


def test_frames_are_given_before_the_next_is_read() -> None:
    asked = []

    class Noted(list[torch.Tensor]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            for t, frame in enumerate(super().__iter__()):
                asked.append(t)
                yield frame

    video = edited(3, 3)
    noted = Video(id="noted", size=video.size, frames=Noted(video.frames))
    first = list(islice(read(noted, Window(), CUTS), 2))
    assert [step.clip.index.tolist() for step in first] == [[0], [1]]
    assert asked == [0, 1]


def test_the_shots_of_a_video_are_found_by_reading_it() -> None:
    assert find_shots(edited(4, 1, 5)) == (0, 4, 5)


def test_a_video_that_ends_early_is_refused() -> None:
    class Short(list[torch.Tensor]):
        def __len__(self) -> int:
            return 9

    video = edited(5)
    short = Video(id="short", size=video.size, frames=Short(video.frames))
    with pytest.raises(InputError, match="decoding ended before frame 5 of 9"):
        list(read(short, Window(length=3, stride=3), CUTS))
