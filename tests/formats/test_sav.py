"""SA-V's layouts, by hand after its published description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.data.tools.checking import check
from tubelet.formats import registry, sav
from tubelet.formats.files import FormatWarning

SIZE = (32, 48)


def film(path: Path, frames: int) -> None:
    """A clip whose frames get lighter, 24 a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=24)
        stream.height, stream.width = SIZE
        for t in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 10 * t, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def square(left: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[8:16, left : left + 8] = True
    return mask


def as_json(mask: np.ndarray) -> Any:
    return masks.to_json(masks.encode(mask[None])[0])


def write_training(
    root: Path, kind: str = "manual", video: str = "sav_000001", lengths: tuple[int, int] = (10, 3)
) -> Path:
    """Two masklets, of which the second is absent at first."""
    film(root / f"{video}.mp4", lengths[0])
    nothing = np.zeros(SIZE, bool)
    masklet = [[as_json(square(4 * t)), as_json(square(20) if t else nothing)] for t in range(lengths[1])]
    document = {"video_id": video, "video_frame_count": float(lengths[0]), "masklet": masklet, "masklet_id": [0, 3]}
    (root / f"{video}_{kind}.json").write_text(json.dumps(document))
    return root


def test_masklets_of_a_film_are_read_at_the_frames_that_are_annotated(tmp_path: Path) -> None:
    write_training(tmp_path)
    assert registry.detect(tmp_path) == "sav"
    videos = registry.open_set(tmp_path)
    assert videos.classes == ("object",)
    (video,) = videos.videos
    assert (video.id, video.size, len(video), video.fps) == ("sav_000001", SIZE, 3, 6.0)
    assert [video.time(t) for t in range(3)] == pytest.approx([0, 4 / 24, 8 / 24])
    assert [round(float(frame.float().mean()), -1) for frame in video.frames] == [0, 40, 80]
    first, second = video.tracks or ()
    assert (first.id, second.id, second.frames.tolist()) == (0, 3, [1, 2])
    assert first.boxes[2].tolist() == [8, 8, 16, 16]
    assert check(videos).fit
    (alone,) = registry.open_set(tmp_path / "sav_000001_manual.json").videos
    assert alone.tracks == video.tracks


def test_manual_masklets_are_preferred_and_that_is_said(tmp_path: Path) -> None:
    write_training(tmp_path)
    write_training(tmp_path, "auto")
    write_training(tmp_path, "auto", "sav_000002")
    with pytest.warns(FormatWarning, match="automatic masks of 1 videos that have manual ones are left out"):
        videos = sav.read(tmp_path)
    assert [video.id for video in videos.videos] == ["sav_000001", "sav_000002"]


def test_the_validation_layout_has_a_folder_per_object(tmp_path: Path) -> None:
    frames = tmp_path / "JPEGImages_24fps" / "sav_7"
    frames.mkdir(parents=True)
    for t in range(9):
        cv2.imwrite(str(frames / f"{t:05d}.jpg"), np.full((*SIZE, 3), 10 * t, np.uint8))
    for number, times in (("000", (0, 4, 8)), ("001", (4, 8))):
        folder = tmp_path / "Annotations_6fps" / "sav_7" / number
        folder.mkdir(parents=True)
        for t in times:
            cv2.imwrite(str(folder / f"{t:05d}.png"), square(t).astype(np.uint8) * 255)
    (tmp_path / "sav_val.txt").write_text("sav_7\n")
    assert registry.detect(tmp_path) == "sav"
    (video,) = registry.open_set(tmp_path).videos
    assert (video.id, len(video), video.fps) == ("sav_7", 3, 6.0)
    assert [round(float(frame.float().mean()), -1) for frame in video.frames] == [0, 40, 80]
    assert [(track.id, track.frames.tolist()) for track in video.tracks or ()] == [(0, [0, 1, 2]), (1, [1, 2])]
    (frames / "00004.jpg").unlink()
    with pytest.raises(FormatError, match="video sav_7: 1 masks without a frame, the first 00004"):
        sav.read(tmp_path)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected Annotations_6fps, or files such as sav_000001_manual"):
        sav.read(tmp_path)
    write_training(tmp_path, lengths=(10, 4))
    with pytest.raises(FormatError, match="4 frames with masks for a video of 10 frames, expected 3"):
        _ = sav.read(tmp_path).videos[0]
    path = tmp_path / "sav_000001_manual.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "masklet": [[as_json(square(0))]] * 3}))
    with pytest.raises(FormatError, match="frame 0: 1 masks for 2 masklets"):
        _ = sav.read(tmp_path).videos[0]
    path.write_text(json.dumps({**document, "masklet_id": "x"}))
    with pytest.raises(FormatError, match="expected the masklets of SA-V"):
        _ = sav.read(tmp_path).videos[0]
    (tmp_path / "sav_000001.mp4").unlink()
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"sav_000001\.mp4"):
        _ = sav.read(tmp_path).videos[0]
