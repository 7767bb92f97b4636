"""What a finished job keeps, written and read again."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from toy import Toy, moving_patches
from tubelet.apps.web import results
from tubelet.inference.predict import predict
from tubelet.video.writer import VideoWriter


@pytest.mark.parametrize("shots", [(), (0,), (0, 2)])
def test_a_result_is_read_back_with_its_shots(shots: tuple[int, ...], tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", (48, 64), 10) as writer:
        for frame in moving_patches(4):
            writer.write(frame)
    prediction = replace(predict(Toy(), tmp_path / "film.mp4"), shots=shots)
    results.write(tmp_path / results.RESULT, prediction)
    again = results.read(tmp_path / results.RESULT, tmp_path / "film.mp4", "film", 0.5)
    assert again.shots == shots
    assert [track.id for track in again.tracks] == [track.id for track in prediction.tracks]


def test_a_result_of_before_there_were_shots_is_read(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", (48, 64), 10) as writer:
        for frame in moving_patches(2):
            writer.write(frame)
    path = tmp_path / results.RESULT
    results.write(path, predict(Toy(), tmp_path / "film.mp4"))
    told = json.loads(gzip.decompress(path.read_bytes()))
    del told["shots"]
    path.write_bytes(gzip.compress(json.dumps(told).encode()))
    assert results.read(path, tmp_path / "film.mp4", "film", 0.5).shots == ()
