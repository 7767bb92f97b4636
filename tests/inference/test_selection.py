"""Choosing objects by class and by region: predict and stream choose the same."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from toy import Toy, moving_patches
from tubelet.core.errors import ConfigError
from tubelet.inference.predict import predict, stream

LEFT_HALF = [(0, 0), (32, 0), (32, 48), (0, 48)]


def test_only_the_chosen_classes_are_kept() -> None:
    video = moving_patches(4)
    assert predict(Toy(), video, classes=["blue"]).ids == (1,)
    assert [frame.names for frame in stream(Toy(), video, classes=["blue"])] == [("blue",)] * 4


def test_an_object_is_kept_where_its_centre_is_inside_the_region() -> None:
    video = moving_patches(12)
    whole = predict(Toy(shrink=1), video)
    cut = predict(Toy(shrink=1), video, roi=LEFT_HALF)
    for track in whole:
        centre = track.boxes[:, [0, 2]].mean(1)
        assert cut[track.id].frames.tolist() == track.frames[centre < 32].tolist()
        assert 0 < len(cut[track.id].frames) < 12
    for frame in stream(Toy(shrink=1), video, roi=LEFT_HALF):
        assert frame.ids.tolist() == cut.at(frame.index).ids.tolist()


def test_a_track_that_is_never_inside_is_left_out() -> None:
    corner = [(0, 0), (5, 0), (5, 2)]
    assert len(predict(Toy(), moving_patches(4), roi=corner)) == 0


def test_benchmarks_rank_the_chosen_classes_alone() -> None:
    tracks = predict(Toy(), moving_patches(3), top=3, classes=["green", "blue"]).tracks
    assert {track.label for track in tracks} == {1, 2}
    assert len(tracks) == 3


@pytest.mark.parametrize("run", [predict, stream])
def test_a_wrong_choice_is_told_before_the_video_is_read(run: type[predict]) -> None:  # type: ignore[valid-type]
    with pytest.raises(ConfigError, match="no class 'bleu'; did you mean 'blue'"):
        run(Toy(), "nowhere.mp4", classes=["bleu"])
    with pytest.raises(ConfigError, match="roi: a polygon needs three points"):
        run(Toy(), "nowhere.mp4", roi=[(0, 0), (5, 5)])


def test_parts_of_a_video_are_read_alike_by_predict_and_stream() -> None:
    video = moving_patches(10)
    part = {"start": 0.08, "every": 2}
    toy = Toy()
    prediction = predict(toy, video, **part)  # type: ignore[arg-type]
    assert prediction.length == 4
    assert prediction[0].times.tolist() == pytest.approx([0.08, 0.16, 0.24, 0.32])
    times = [frame.time for frame in stream(Toy(), video, **part)]  # type: ignore[arg-type]
    assert times == pytest.approx([0.08, 0.16, 0.24, 0.32])
    generated = [frame.time for frame in stream(Toy(), iter(video), **part)]  # type: ignore[arg-type]
    assert generated == pytest.approx(times)


def test_a_generator_is_read_no_further_than_needed() -> None:
    taken = []

    def endless() -> object:
        while True:
            for image in moving_patches(5):
                taken.append(image)
                yield image

    frames = list(islice(stream(Toy(), endless()), 7))  # type: ignore[arg-type]
    assert [frame.ids.tolist() for frame in frames] == [[0, 1]] * 7
    assert len(taken) <= 9
    assert np.array_equal(frames[0].image.permute(1, 2, 0), taken[0])
