from __future__ import annotations

import base64
from fractions import Fraction

import cv2
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tubelet.apps.report import film
from tubelet.core import masks
from tubelet.core.types import Track, Video


@given(length=st.integers(1, 200), wanted=st.lists(st.integers(0, 199), max_size=60), count=st.integers(2, 10))
def test_chosen_frames_are_few_rising_and_favour_the_wanted(length: int, wanted: list[int], count: int) -> None:
    wanted = [t for t in wanted if t < length]
    frames = film.chosen(length, wanted, count)
    assert frames == sorted(set(frames))
    assert len(frames) == min(count, length) or len(frames) <= count
    assert all(0 <= t < length for t in frames)
    if len(set(wanted)) <= count - 2:
        assert set(wanted) <= set(frames)


def decoded(source: str) -> np.ndarray:
    head, _, code = source.partition(",")
    assert head == "data:image/jpeg;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_COLOR)


def test_a_picture_shows_the_frame_and_the_object() -> None:
    mask = np.zeros((1, 240, 320), bool)
    mask[0, 60:180, 80:240] = True
    track = Track(id=3, label=0, score=0.8, rles=(None, masks.encode(mask)[0]))
    frames = [torch.full((3, 240, 320), 200, dtype=torch.uint8)] * 2
    video = Video(id="v", size=(240, 320), frames=frames, tracks=(track,))
    empty, full = (decoded(film.picture(video, t, [track], ["cow"], frames=True)) for t in (0, 1))
    assert empty.shape == full.shape == (225, 300, 3)
    assert abs(empty.astype(int) - 200).max() < 12
    assert abs(full[112, 150].astype(int) - 200).max() > 12
    grey = decoded(film.picture(video, 0, [track], ["cow"], frames=False))
    assert abs(grey.astype(int) - film.BACKGROUND).max() < 12


def test_a_picture_has_the_shape_that_a_player_shows() -> None:
    frames = [torch.zeros(3, 240, 320, dtype=torch.uint8)]
    video = Video(id="v", size=(240, 320), frames=frames, pixel_aspect=Fraction(1, 2))
    for has_frames in (True, False):
        assert decoded(film.picture(video, 0, [], ["cow"], frames=has_frames)).shape == (240, 160, 3)
