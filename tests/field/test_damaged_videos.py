"""Videos that are broken in twelve ways: what still decodes is shown as by a player, or one line refuses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from clips import number_of
from field.damage import WAYS
from field.films import Film
from field.player import Shown, play
from tubelet.core.errors import InputError
from tubelet.core.types import Video
from tubelet.video import decoding
from tubelet.video.reader import open_video

FRAGMENTED = "movflags=frag_keyframe+empty_moov+default_base_moof"
FILMS = {
    "mp4": Film(b_frames=2),
    "mp4, index in front": Film(b_frames=2, container_options="movflags=+faststart"),
    "mp4, fragments": Film(b_frames=2, container_options=FRAGMENTED),
    "mkv": Film(suffix=".mkv", b_frames=2),
    "webm": Film(suffix=".webm", codec="libvpx-vp9"),
    "ts": Film(suffix=".ts", b_frames=2),
    "mpg": Film(suffix=".mpg", codec="mpeg2video", b_frames=2),
    "avi": Film(suffix=".avi", codec="mpeg4"),
    "avi, jpegs": Film(suffix=".avi", codec="mjpeg", pixels="yuvj420p"),
    "flv": Film(suffix=".flv", b_frames=2),
    "gif": Film(suffix=".gif", codec="gif", pixels="rgb8"),
    "png": Film(suffix=".png"),
}
TICK = 2e-3  # seconds; containers round times to milliseconds


def in_turn(shown: list[Shown]) -> list[Shown]:
    """The frames without those that come too late: their time has passed."""
    latest = -1.0
    kept = []
    for frame in shown:
        if frame.time is not None and frame.time > latest:
            kept.append(frame)
            latest = frame.time
    return kept


def at(time: float, shown: list[Shown]) -> Shown:
    """The frame on the screen at a time."""
    return [frame for frame in shown if frame.time is not None and frame.time <= time + TICK][-1]


def opened(path: Path) -> Video | str:
    """The video, or the words that refuse it."""
    try:
        return open_video(path)
    except InputError as error:
        return str(error)


def anything_of(path: Path) -> list[Shown]:
    """What a player shows, if it opens the file at all."""
    try:
        return play(path)
    except (av.FFmpegError, AttributeError):  # no video stream
        return []


def numbers(images: Iterable[torch.Tensor]) -> list[int]:
    return [number_of(image) for image in images]


@pytest.mark.filterwarnings("ignore::tubelet.video.reader.TruncatedVideoWarning")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", FILMS)
def test_what_is_left_of_a_broken_video_is_shown_as_by_a_player(
    name: str, way: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "NEAR", 2)  # so that films this short are read by seeking too
    path = FILMS[name].write(tmp_path)
    path.write_bytes(way(path.read_bytes()))
    video = opened(path)
    if isinstance(video, str):
        assert "\n" not in video
        assert not anything_of(path)
        return

    in_order = list(video.frames)
    assert len(in_order) == len(video)
    shown = play(path)
    if video.times is None:
        assert numbers(in_order[: len(shown)]) == numbers(frame.image for frame in shown)
    else:
        assert numbers(in_order) == [number_of(at(time, in_turn(shown)).image) for time in video.times]

    is_filled_in = any(frame.is_damaged for frame in shown)
    for t in np.random.default_rng(0).permutation(len(video)).tolist():
        assert number_of(video.frames[t]) == number_of(in_order[t])
        if not is_filled_in:  # else it depends on where decoding began
            assert torch.equal(video.frames[t], in_order[t]), t
