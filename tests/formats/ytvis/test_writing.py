"""The written JSON has one entry per frame, whatever form tracks have in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tubelet.core import masks
from tubelet.core.masks import RLE
from tubelet.core.records import Prediction, Track, Video, VideoSet
from tubelet.formats import ytvis

SIZE, LENGTH = (4, 6), 7
Dense = list[RLE | None]
EARLIER = (
    '{"videos":[{"id":1,"name":"dog","height":4,"width":6,"length":3,"shots":[0,2]}],\n'
    '"categories":[{"id":1,"name":"cat"},{"id":2,"name":"dog"}],\n'
    '"annotations":[{"id":3,"video_id":1,"category_id":2,"iscrowd":0,"height":4,"width":6,"leng'
    'th":3,"segmentations":[null,{"size":[4,6],"counts":"0h0"},{"size":[4,6],"counts":"01400000'
    '4"}],"bboxes":[null,[0.0,0.0,6.0,4.0],[0.0,0.0,4.0,4.0]],"areas":[null,24,4],"track_id":3,'
    '"score":0.25},\n'
    '{"id":8,"video_id":1,"category_id":1,"iscrowd":0,"height":4,"width":6,"length":3,"segmenta'
    'tions":[{"size":[4,6],"counts":"014000004"},null,null],"bboxes":[[0.0,0.0,4.0,4.0],null,nu'
    'll],"areas":[4,null,null],"track_id":8,"score":1.0}]}\n'
)


def random_track(rng: np.random.Generator) -> Dense:
    """Noise in some frames, None in the others; an empty mask now and then."""
    noise = rng.random((LENGTH, *SIZE)) < rng.choice([0.0, 0.3, 0.9], (LENGTH, 1, 1))
    absent = rng.random(LENGTH) < rng.random()
    return [None if gone else rle for gone, rle in zip(absent, masks.encode(noise), strict=True)]


def annotation(dense: Dense) -> dict[str, Any]:
    """The part of an annotation that depends on the masks, made frame by frame."""
    boxes = [None if rle is None else masks.boxes([rle])[0] for rle in dense]
    return {
        "length": len(dense),
        "segmentations": [masks.to_json(rle) for rle in dense],
        "bboxes": [None if box is None else [*box[:2], *(box[2:] - box[:2])] for box in boxes],
        "areas": [None if rle is None else int(masks.areas([rle])[0]) for rle in dense],
    }


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_every_frame_is_written_as_if_tracks_were_dense(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = [random_track(rng) for _ in range(3)]
    tracks = tuple(Track(id=n, label=0, score=0.5, rles=rles) for n, rles in enumerate(dense))
    prediction = Prediction(video="7", size=SIZE, length=LENGTH, tracks=tracks, classes=("dog",))
    truth = VideoSet(videos=(Video(id="7", size=SIZE, frames=[None] * LENGTH),), classes=("dog",))

    ytvis.write_predictions(tmp_path / "predictions.json", [prediction])
    ytvis.write_results(tmp_path / "results.json", [prediction], truth)
    written = json.loads((tmp_path / "predictions.json").read_text())["annotations"]
    results = json.loads((tmp_path / "results.json").read_text())
    for rles, entry, result in zip(dense, written, results, strict=True):
        expected = annotation(rles)
        assert {key: entry[key] for key in expected} == expected
        assert result["segmentations"] == expected["segmentations"]


def test_the_bytes_of_a_file_are_those_of_earlier_versions(tmp_path: Path) -> None:
    (full, part) = masks.encode(np.stack([np.ones(SIZE, bool), np.eye(*SIZE, dtype=bool)]))
    tracks = (
        Track(id=3, label=1, score=0.25, rles=(None, full, part)),
        Track(id=8, label=0, score=1.0, rles=(part, None, None)),
    )
    prediction = Prediction(video="dog", size=SIZE, length=3, tracks=tracks, classes=("cat", "dog"), shots=(0, 2))
    ytvis.write_predictions(tmp_path / "predictions.json", [prediction])
    assert (tmp_path / "predictions.json").read_text() == EARLIER
