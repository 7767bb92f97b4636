"""One loop, three ways of reading: `predict` and `stream` on videos whose objects are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edited import scene
from toy import COLOURS, Seen, Toy, moving_patches
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.masks import decode
from tubelet.core.protocol import Traits, VideoSegmenter, Window
from tubelet.core.types import Clip, Prediction, Tracks, Video
from tubelet.inference.predict import predict, stream
from tubelet.video.live import LiveVideo
from tubelet.video.reader import open_video

WINDOWS = {
    "online": Window(),
    "clips": Window(length=4, stride=4),
    "overlapping clips": Window(length=5, stride=2),
    "with context": Window(length=2, stride=2, context=3),
    "whole": Window(length=None),
}


def colour_masks(video: np.ndarray, colour: str) -> np.ndarray:
    return (video == np.array(COLOURS[colour])).all(-1)


def track_masks(prediction: Prediction, label: int) -> np.ndarray:
    (track,) = [track for track in prediction.tracks if track.label == label]
    blank = np.zeros(prediction.size, np.uint8)
    return np.stack([blank if rle is None else decode([rle])[0] for rle in track.rles]) > 0


def live(video: np.ndarray) -> LiveVideo:
    return LiveVideo("test", ((t / 10, frame) for t, frame in enumerate(open_video(video).frames)), waits=True)


def test_the_toy_is_a_segmenter() -> None:
    assert isinstance(Toy(), VideoSegmenter)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS.keys())
def test_every_way_of_reading_finds_the_same_objects(window: Window) -> None:
    video = moving_patches(11)
    prediction = predict(Toy(shrink=1), video, window=window)
    assert [track.id for track in prediction.tracks] == [0, 1]
    assert prediction.length == 11
    for label, colour in enumerate(COLOURS):
        if colour in ("red", "blue"):
            assert np.array_equal(track_masks(prediction, label), colour_masks(video, colour))


def test_a_spread_window_interpolates_the_frames_between() -> None:
    video = moving_patches(9, colours=("red",))
    toy = Toy(Window(length=5, spread=True), shrink=1)
    masks = track_masks(predict(toy, video), 0)
    assert toy.steps == [[0, 2, 4, 6, 8]]
    truth = colour_masks(video, "red")
    assert np.array_equal(masks[::2], truth[::2])
    assert np.array_equal(masks[1::2], truth[:-1:2] & truth[2::2])  # halfway, only where both agree


def test_a_window_of_the_caller_replaces_the_model_s() -> None:
    toy = Toy(Window(length=2, stride=2))
    predict(toy, moving_patches(4), window=Window(length=3, stride=1))
    assert toy.steps == [[0, 1, 2], [1, 2, 3]]


def test_tracks_under_the_threshold_are_left_out() -> None:
    video = moving_patches(3)
    assert len(predict(Toy(confidence=0.45), video, threshold=0.4).tracks) == 2
    assert predict(Toy(confidence=0.45), video).tracks == ()


def test_scores_keep_their_full_precision() -> None:
    (track, _) = predict(Toy(confidence=0.7), moving_patches(3)).tracks
    assert track.score == float(np.float32(0.7))


def test_the_model_may_say_how_classes_are_voted_and_which_tracks_are_too_short() -> None:
    class Unsteady(Toy):
        traits = Traits(vote="score", min_frames=2)

        def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
            state, tracks = super().step(state, clip)
            if int(clip.index[0]) == 2:  # once, but surely, the first object is taken for another class
                tracks = replace(tracks, scores=torch.tensor([[0.0, 0, 0, 1.0]] * len(tracks)))
            return state, tracks

    video = moving_patches(3, colours=("red",))
    video[0, :10, :10] = COLOURS["green"]
    model = Unsteady(confidence=0.45)
    (track,) = predict(model, video, threshold=0).tracks
    assert track.label == 3
    assert [frame.ids.tolist() for frame in stream(model, video, threshold=0)] == [[], [0], [0]]
    model.traits = Traits(min_frames=2)
    assert predict(model, video, threshold=0).tracks[0].label == 0


def test_progress_counts_every_frame() -> None:
    told: list[tuple[int, int]] = []
    predict(Toy(Window(length=3, stride=2)), moving_patches(6), progress=lambda *now: told.append(now))
    assert told == [(t + 1, 6) for t in range(6)]


@pytest.mark.parametrize("source", ["array", "tensor", "file", "images", "live"])
def test_stream_gives_the_masks_and_ids_that_predict_gives(source: str, tmp_path: Path) -> None:
    video = moving_patches(10, size=(37, 51) if source != "file" else (48, 64), patch=11)
    sources: dict[str, Any] = {"array": video, "tensor": torch.from_numpy(video).permute(0, 3, 1, 2)}
    if source in ("file", "images"):
        sources[source] = written(video, tmp_path, images=source == "images")
    read = live(video) if source == "live" else sources[source]
    prediction = predict(Toy(), video if source == "live" else read, threshold=0)
    frames = list(stream(Toy(), read, threshold=0))
    assert [frame.index for frame in frames] == list(range(10))
    for t, frame in enumerate(frames):
        shown = {track.id: decode([rle])[0] > 0 for track in prediction.tracks if (rle := track.rles[t]) is not None}
        assert frame.ids.tolist() == list(shown)
        assert np.array_equal(frame.masks.numpy(), np.stack(list(shown.values())))
        assert frame.names == tuple(Toy.classes[label] for label in frame.labels.tolist())


def written(video: np.ndarray, folder: Path, *, images: bool) -> Path:
    from tubelet.video.writer import ImageWriter, VideoWriter

    target = folder / "frames" if images else folder / "video.mp4"
    size = (video.shape[1], video.shape[2])
    with ImageWriter(target) if images else VideoWriter(target, size, 10) as writer:
        for frame in video:
            writer.write(frame)
    return target


@pytest.mark.parametrize("window", [Window(length=3, stride=3), Window(length=4, stride=1), Window(length=20)])
@pytest.mark.parametrize("is_live", [False, True])
def test_streaming_by_clips_gives_every_frame_once_and_in_order(window: Window, is_live: bool) -> None:
    video = moving_patches(11)
    toy = Toy(window, shrink=1)
    frames = list(stream(toy, live(video) if is_live else video))
    assert [frame.index for frame in frames] == list(range(11))
    for t, frame in enumerate(frames):
        assert np.array_equal(frame.image.permute(1, 2, 0).numpy(), video[t])
        assert np.array_equal(frame.masks[0].numpy(), colour_masks(video, "red")[t])


def test_streaming_shows_a_frame_before_the_next_is_read() -> None:
    read: list[int] = []

    class Watched(list[Tensor]):
        def __iter__(self) -> Any:
            for t, frame in enumerate(super().__iter__()):
                read.append(t)
                yield frame

    frames = Watched(open_video(moving_patches(6)).frames)
    endless = Video(id="watched", size=(48, 64), frames=frames)
    shown = stream(Toy(), endless)
    assert next(shown).index == 0
    assert read == [0]
    assert [frame.index for frame in islice(shown, 2)] == [1, 2]
    assert read == [0, 1, 2]


def test_a_stream_shows_tracks_whose_mean_so_far_reaches_the_threshold() -> None:
    class Rising(Toy):
        def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
            self.confidence = (0.3, 0.4, 0.8, 0.7)[int(clip.index[0])]
            return super().step(state, clip)

    frames = list(stream(Rising(), moving_patches(4, colours=("green",)), threshold=0.45))
    assert [frame.ids.tolist() for frame in frames] == [[], [], [0], [0]]
    assert [frame.scores.tolist() for frame in frames[2:]] == [pytest.approx([0.5]), pytest.approx([0.55])]


def test_live_frames_keep_the_times_of_their_source() -> None:
    times = [frame.time for frame in stream(Toy(Window(length=2, stride=2)), live(moving_patches(5)))]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_leaving_a_stream_releases_its_source() -> None:
    source = live(moving_patches(5))
    frames = stream(Toy(), source)
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="only once"):
        next(iter(source))


def test_what_a_stream_gives_can_be_used_in_training() -> None:
    frame = next(stream(Toy(), moving_patches(1)))
    assert torch.is_inference_mode_enabled() is False
    assert not any(tensor.is_inference() for tensor in (frame.masks, frame.scores, frame.boxes, frame.ids))


def test_a_model_in_training_stays_in_training() -> None:
    toy = Toy().train()
    modes: list[bool] = []
    toy.register_forward_pre_hook(lambda *_: None)
    original = toy.step
    toy.step = lambda state, clip: (modes.append(toy.training), original(state, clip))[1]  # type: ignore[method-assign]
    predict(toy, moving_patches(2))
    assert modes == [False, False]
    assert toy.training


@pytest.mark.parametrize("window", [Window(length=None), Window(length=4, spread=True)])
def test_a_window_over_the_whole_video_cannot_stream(window: Window) -> None:
    with pytest.raises(ConfigError, match="use predict"):
        stream(Toy(), moving_patches(3), window=window)


def test_a_live_source_has_no_context() -> None:
    with pytest.raises(ConfigError, match="expected context=0, got 2"):
        stream(Toy(), live(moving_patches(3)), window=Window(context=2))


@pytest.mark.parametrize("source", [0, "rtsp://somewhere/stream"])
def test_a_live_source_cannot_be_predicted_as_a_whole(source: Any) -> None:
    with pytest.raises(InputError, match="live source has no end"):
        predict(Toy(), source)


def test_a_model_that_answers_for_other_frames_is_told_so() -> None:
    class Late(Toy):
        def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
            state, tracks = super().step(state, clip)
            return state, replace(tracks, index=tracks.index + 1)

    with pytest.raises(ValueError, match=r"was to predict frames \[0\] and gave \[1\]"):
        predict(Late(), moving_patches(2))


def test_a_model_that_uses_an_id_twice_is_told_so() -> None:
    class Twice(Toy):
        def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
            state, tracks = super().step(state, clip)
            return state, Tracks.cat([tracks, tracks])

    with pytest.raises(ValueError, match="one id to several objects"):
        predict(Twice(), moving_patches(1))


# scene cuts


def edited(*lengths: int) -> np.ndarray:
    """Scenes in turn, of so many frames, with a red patch that drifts through all of them."""
    scenes = np.concatenate([scene(seed, length, size=(48, 64)) // 2 for seed, length in enumerate(lengths)])
    for t, frame in enumerate(scenes):
        frame[10:30, t : t + 20] = COLOURS["red"]
    return scenes


class Watchful(Toy):
    """Counts an object anew in every shot, and in every frame that comes without its shot."""

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        _, tracks = super().step(Seen(), clip)
        self.steps[-1] = [clip.shot, *self.steps[-1]]
        return state, replace(tracks, ids=tracks.ids + clip.shot)


def test_shots_are_told_and_reach_the_model() -> None:
    model = Watchful()
    prediction = predict(model, edited(4, 3, 5))
    assert prediction.shots == (0, 4, 7)
    assert [step[0] for step in model.steps] == [0] * 4 + [1] * 3 + [2] * 5
    seen = {track.id: [t for t, rle in enumerate(track.rles) if rle is not None] for track in prediction.tracks}
    assert seen == {0: [0, 1, 2, 3], 1: [4, 5, 6], 2: [7, 8, 9, 10, 11]}
    assert [prediction.at(t).shot for t in (3, 4, 6, 7, 11)] == [0, 1, 1, 2, 2]


def test_without_looking_for_cuts_the_video_is_one_shot() -> None:
    prediction = predict(Watchful(), edited(4, 3), cuts=False)
    assert prediction.shots == ()
    assert [track.id for track in prediction.tracks] == [0]
    assert {frame.shot for frame in stream(Watchful(), edited(4, 3), cuts=False)} == {0}


def test_a_video_without_a_cut_has_one_shot_and_the_same_objects() -> None:
    with_cuts, without = (predict(Toy(), moving_patches(6), cuts=cuts) for cuts in (True, False))
    assert with_cuts.shots == (0,)
    assert with_cuts.tracks == without.tracks


@pytest.mark.parametrize("live_source", [False, True])
@pytest.mark.parametrize("window", [Window(), Window(length=4, stride=4), Window(length=5, stride=2)])
def test_predict_and_stream_agree_on_an_edited_video(window: Window, live_source: bool) -> None:
    video = edited(7, 2, 6)
    prediction = predict(Watchful(), video, window=window)
    frames = list(stream(Watchful(), live(video) if live_source else video, window=window))
    assert [frame.shot for frame in frames] == [0] * 7 + [1] * 2 + [2] * 6
    for frame in frames:
        expected = prediction.at(frame.index)
        assert torch.equal(frame.ids, expected.ids)
        assert torch.equal(frame.masks, expected.masks)


def test_a_spread_window_knows_of_no_shots() -> None:
    assert predict(Toy(), edited(4, 3), window=Window(length=3, spread=True)).shots == ()
