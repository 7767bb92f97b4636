"""A line of JSON per frame: what is written is read, whole, cut off or damaged."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tubelet.core import masks
from tubelet.core.errors import ConfigError, FormatError, InputError
from tubelet.core.masks import RLE
from tubelet.core.records import Prediction, Track, Video, VideoSet
from tubelet.formats import frame_lines, frame_lines_reading, ytvis
from tubelet.formats.frame_lines import FrameRecord
from tubelet.formats.registry import detect

SIZE, LENGTH, CLASSES = (4, 6), 8, ("cat", "dog")


def random_rles(rng: np.random.Generator) -> tuple[RLE | None, ...]:
    noise = rng.random((LENGTH, *SIZE)) < rng.choice([0.0, 0.3, 0.9], (LENGTH, 1, 1))
    absent = rng.random(LENGTH) < rng.random()
    return tuple(None if gone else rle for gone, rle in zip(absent, masks.encode(noise), strict=True))


def random_prediction(seed: int, video: str = "7") -> Prediction:
    """Tracks of all kinds; two of them share their masks."""
    rng = np.random.default_rng(seed)
    tracks = [
        Track(id=3 * n, label=int(rng.integers(2)), score=float(rng.random()), rles=random_rles(rng)) for n in range(3)
    ]
    tracks.append(replace(tracks[0], id=20, label=1 - tracks[0].label, score=0.1))
    return Prediction(video=video, size=SIZE, length=LENGTH, tracks=tuple(tracks), classes=CLASSES, shots=(0, 5))


def truth_of(*predictions: Prediction) -> VideoSet:
    videos = [Video(id=each.video, size=each.size, frames=[None] * each.length) for each in predictions]
    return VideoSet(videos=videos, classes=CLASSES)


def read(path: Path, truth: VideoSet) -> list[Prediction]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ytvis.read_predictions(path, truth)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_both_forms_are_read_as_the_same_predictions(tmp_path: Path, seed: int) -> None:
    predictions = [random_prediction(seed), random_prediction(seed + 1, video="8")]
    truth = truth_of(*predictions)
    for name in ("a.json", "a.jsonl"):
        ytvis.write_predictions(tmp_path / name, predictions)
    assert read(tmp_path / "a.jsonl", truth) == read(tmp_path / "a.json", truth) == predictions
    lines, document = (ytvis.read(tmp_path / name) for name in ("a.jsonl", "a.json"))
    assert [video.tracks for video in lines.videos] == [video.tracks for video in document.videos]
    assert (lines.names, lines.classes) == (document.names, document.classes)
    assert detect(tmp_path / "a.jsonl") == "ytvis"


def recorded(path: Path, prediction: Prediction, *, finish: bool = True) -> FrameRecord:
    """The file of a run that finds these tracks."""
    record = FrameRecord(path, prediction.video, prediction.size, prediction.length, prediction.classes)
    for t in range(prediction.length):
        seen = prediction.in_frame(t)
        tracks = [track for track, _ in seen]
        rles = [rle for _, rle in seen]
        record.add(t, [track.id for track in tracks], [track.label for track in tracks], [0.25] * len(tracks), rles)
    if finish:
        record.finish(prediction.tracks, {id: id for id in prediction.ids}, prediction.shots)
    return record


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_masks_are_read_from_a_file_that_grows(tmp_path: Path, seed: int) -> None:
    prediction = random_prediction(seed)
    record = recorded(tmp_path / "a.jsonl", prediction, finish=False)
    stored = [record.masks(track.id, LENGTH) for track in prediction.tracks]
    assert stored == [track.rles for track in prediction.tracks]
    assert [rles[2:7:2] for rles in stored] == [track.rles[2:7:2] for track in prediction.tracks]
    assert pickle.loads(pickle.dumps(stored)) == stored

    kept = [replace(track, rles=rles.between(1, 6)) for track, rles in zip(prediction.tracks, stored, strict=True)]
    record.finish(kept, {id: id for id in prediction.ids}, prediction.shots)
    expected = [track for track in kept if len(track.frames)]
    (found,) = read(tmp_path / "a.jsonl", truth_of(prediction))
    assert [track for track in found.tracks if len(track.frames)] == expected
    assert found.shots == prediction.shots


def test_a_file_that_is_replaced_stays_readable_to_the_tracks_that_came_from_it(tmp_path: Path) -> None:
    prediction = random_prediction(0)
    record = recorded(tmp_path / "a.jsonl", prediction)
    (tmp_path / "other").write_bytes(b"something else")
    (tmp_path / "other").replace(tmp_path / "a.jsonl")
    assert record.masks(3, LENGTH) == prediction[3].rles


def test_masks_that_are_gone_are_an_error(tmp_path: Path) -> None:
    stored = recorded(tmp_path / "a.jsonl", random_prediction(0)).masks(3, LENGTH)
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.jsonl: .*the file has become shorter"):
        tuple(stored)


# ended or damaged


@pytest.mark.filterwarnings("ignore:.*no predictions in it")
def test_a_run_that_was_killed_at_any_byte_gives_all_frames_up_to_then(tmp_path: Path) -> None:
    prediction = random_prediction(4)
    prediction = replace(prediction, tracks=prediction.tracks[:3])
    recorded(tmp_path / "whole.jsonl", prediction)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    start = whole.index(b"\n") + 1
    for stop in range(start, len(whole)):
        (tmp_path / "cut.jsonl").write_bytes(whole[:stop])
        with pytest.warns(
            UserWarning, match=r"cut\.jsonl: ends early, (after frame \d|before the first frame) of 8;"
        ) as caught:
            (found,) = ytvis.read_predictions(tmp_path / "cut.jsonl", truth_of(prediction))
        assert len([w for w in caught if "ends early" in str(w.message)]) == 1
        num_frames = whole[:stop].count(b'"frame":') - whole[:stop].rpartition(b"\n")[2].count(b'"frame":')
        for track in found.tracks:
            assert track.rles == prediction[track.id].entries.between(0, num_frames)
            assert (track.label, track.score) == (prediction[track.id].label, 0.25)
        assert {id for id in prediction.ids if len(prediction[id].entries.between(0, num_frames).frames)} == set(
            found.ids
        )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"\0\0\0\0", "line 4: expected JSON"),
        (b'{"line":"frame","frame":1}', "frame 1 cannot come after frame 1 of 8"),
        (b'{"line":"frame","frame":8}', "frame 8 cannot come after frame 1 of 8"),
        (b'{"line":"frame","frame":9999999}', "line 4: not of the expected form"),
        (b'{"line":"frame","frame":2,"ids":[3]}', "frame 2: expected an id of its own"),
        (b'{"line":"frame","frame":2,"ids":[3,3],"labels":[0,0],"scores":[0,0],"counts":["a","b"]}', "id of its own"),
        (b'{"line":"frame","frame":2,"ids":[3],"labels":[0],"scores":[0],"counts":[""]}', "frame 2: counts are empty"),
        (b'{"line":"track","id":99,"label":0,"score":1.0}', "track 99 is of object 99, which is in no frame"),
        (b'{"line":"track","id":1,"label":0,"score":1.0,"parts":[[3,0,1],[99,1,2]]}', "is of object 99"),
        (b'{"line":"end","tracks":3}', "expected 3 tracks, found 0"),
        (b'{"line":"video","name":"8","height":4,"width":6,"length":8}', "a video begins before the one before"),
    ],
)
def test_what_comes_before_a_damaged_line_is_read(tmp_path: Path, line: bytes, problem: str) -> None:
    prediction = random_prediction(4)
    recorded(tmp_path / "a.jsonl", prediction)
    lines = (tmp_path / "a.jsonl").read_bytes().splitlines()
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*lines[:3], line, *lines[3:], b""]))
    with pytest.warns(UserWarning, match=rf"damaged after frame 1 of 8, .*{problem}.*; what comes before is read"):
        (found,) = ytvis.read_predictions(tmp_path / "a.jsonl", truth_of(prediction))
    assert {t for track in found.tracks for t in track.frames.tolist()} <= {0, 1}
    assert found.tracks


def test_a_file_without_a_whole_first_line_is_refused(tmp_path: Path) -> None:
    for content in (b'{"line":"video","name":"7"', b'{"line":"video","name":"7","height":0,"width":6,"length":8}\n'):
        (tmp_path / "a.jsonl").write_bytes(content)
        with pytest.raises(FormatError, match=r"a\.jsonl: expected a video's line first"):
            ytvis.read(tmp_path / "a.jsonl")


def test_a_mask_that_is_broken_is_told_like_in_the_other_form(tmp_path: Path) -> None:
    prediction = random_prediction(4)
    recorded(tmp_path / "a.jsonl", prediction)
    content = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    frame = json.loads(content[2])
    frame["counts"][0] = "1" + frame["counts"][0]
    content[2] = json.dumps(frame) + "\n"
    (tmp_path / "a.jsonl").write_text("".join(content))
    with pytest.raises(FormatError, match=rf"a\.jsonl: video 7, track {frame['ids'][0]}, frame 1: "):
        ytvis.read_predictions(tmp_path / "a.jsonl", truth_of(prediction))


def test_results_of_another_extent_do_not_fit_the_truth(tmp_path: Path) -> None:
    ytvis.write_predictions(tmp_path / "a.jsonl", [random_prediction(4)])
    longer = VideoSet(videos=(Video(id="7", size=SIZE, frames=[None] * 9),), classes=CLASSES)
    larger = VideoSet(videos=(Video(id="7", size=(9, 9), frames=[None] * LENGTH),), classes=CLASSES)
    with pytest.raises(FormatError, match="expected 9 segmentations, one per frame of the video, got 8"):
        ytvis.read_predictions(tmp_path / "a.jsonl", longer)
    with pytest.raises(FormatError, match=r"expected masks of size \[9, 9\] \(height, width\), got \[4, 6\]"):
        ytvis.read_predictions(tmp_path / "a.jsonl", larger)


def test_parts_that_repeat_far_more_than_is_stored_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_lines_reading, "MOST_MASKS", 100)
    recorded(tmp_path / "a.jsonl", random_prediction(4))
    lines = (tmp_path / "a.jsonl").read_bytes().splitlines()[:9]
    repeated = [b'{"line":"track","id":%d,"label":0,"score":1.0,"parts":[[3,0,8]]}' % n for n in range(500)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*lines, *repeated, b'{"line":"end","tracks":500}', b""]))
    with pytest.raises(FormatError, match="its tracks have more than 100 masks"):
        ytvis.read(tmp_path / "a.jsonl")


def test_a_track_may_be_made_of_parts_of_objects_but_of_one_mask_a_frame(tmp_path: Path) -> None:
    prediction = random_prediction(9)
    recorded(tmp_path / "a.jsonl", prediction)
    lines = (tmp_path / "a.jsonl").read_bytes().splitlines()[:9]
    for parts, is_right in (([[3, 4, 8], [6, 0, 4]], True), ([[3, 0, 8], [6, 0, 8]], False)):
        track = json.dumps({"line": "track", "id": 1, "label": 0, "score": 1.0, "parts": parts}).encode()
        (tmp_path / "b.jsonl").write_bytes(b"\n".join([*lines, track, b'{"line":"end","tracks":1}', b""]))
        if is_right:
            (found,) = read(tmp_path / "b.jsonl", truth_of(prediction))
            assert found.tracks[0].rles == prediction[3].entries.between(4, 8).joined(
                prediction[6].entries.between(0, 4)
            )
        else:
            with pytest.raises(FormatError, match="track 1 has two masks in one frame"):
                ytvis.read(tmp_path / "b.jsonl")


def test_a_long_video_with_short_tracks_is_a_small_file(tmp_path: Path) -> None:
    length = 20_000
    (rle,) = masks.encode(np.ones((1, *SIZE), bool))
    tracks = tuple(
        Track(id=n, label=0, score=0.5, rles=masks.SparseMasks(length, np.array([10 * n], np.int32), (rle,)))
        for n in range(2000)
    )
    prediction = Prediction(video="7", size=SIZE, length=length, tracks=tracks, classes=CLASSES)
    ytvis.write_predictions(tmp_path / "a.jsonl", [prediction])
    assert (tmp_path / "a.jsonl").stat().st_size < 2_000_000  # JSON with every frame of every track: 200 MB
    assert read(tmp_path / "a.jsonl", truth_of(prediction)) == [prediction]


def test_another_ending_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"results: expected a file that ends in \.jsonl, got 'a\.json'"):
        frame_lines.frame_lines_path("a.json")
