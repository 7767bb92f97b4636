from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.types import Prediction, Track, Video
from tubelet.formats import submission, ytvis
from tubelet.formats.ytvis.numbering import AnnotatedSet

SIZE = (4, 6)
RLE = masks.encode(np.ones((1, *SIZE), bool))[0]
TRUTH = AnnotatedSet(
    videos=(Video(id="17", size=SIZE, frames=[None, None]),),
    classes=("cow", "dog"),
    category_ids=(3, 40),
    names=("meadow",),
)


def prediction(*tracks: Track) -> Prediction:
    return Prediction(video="17", size=SIZE, length=2, tracks=tracks, classes=("dog", "cow"))


def test_a_submission_holds_one_list_with_the_truth_s_ids(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.zip"
    submission.write(path, [prediction(Track(id=1, label=0, score=0.1, rles=(RLE, None)))], TRUTH)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["results.json"]
        listed = json.loads(archive.read("results.json"))
    assert listed == [
        {
            "video_id": 17,
            "category_id": 40,
            "score": 0.1,
            "segmentations": [{"size": [4, 6], "counts": RLE.counts.decode()}, None],
        }
    ]
    assert [entry.name for entry in path.parent.iterdir()] == ["results.zip"]


def test_an_empty_submission_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="servers refuse an empty list"):
        submission.write(tmp_path / "r.zip", [prediction()], TRUTH)
    assert list(tmp_path.iterdir()) == []


def test_masks_that_do_not_fit_the_truth_leave_nothing_behind(tmp_path: Path) -> None:
    short = Track(id=1, label=0, score=0.5, rles=(RLE,))
    with pytest.raises(FormatError, match="expected 2 segmentations"):
        submission.write(tmp_path / "r.zip", [prediction(short)], TRUTH)
    assert list(tmp_path.iterdir()) == []


def test_a_submission_is_read_as_it_was_written(tmp_path: Path) -> None:
    tracks = tuple(Track(id=n, label=n % 2, score=1 / (n + 1), rles=(None, RLE)) for n in range(1, 5))
    submission.write(tmp_path / "r.zip", [prediction(*tracks)], TRUTH)
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        archive.extract("results.json", tmp_path)
    again = ytvis.read_predictions(tmp_path / "results.json", TRUTH)[0]
    assert [(t.score, TRUTH.classes[t.label]) for t in again.tracks] == [
        (t.score, ("dog", "cow")[t.label]) for t in tracks
    ]
