"""Convert results for other programs: supervision, COCO, YouTube-VIS, DAVIS, pandas.

The methods of `VideoPrediction` of the same names call these functions. Coordinates are pixels of the video, boxes are
tight around the masks; no frame of the video is decoded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, overload

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import InputError
from tubelet.core.masks import RLE
from tubelet.core.records import Prediction, Track, Video, VideoSet
from tubelet.core.text import plain
from tubelet.core.untrusted.documents import read_json
from tubelet.core.untrusted.files import as_path
from tubelet.formats import davis
from tubelet.formats.storing import Omissions
from tubelet.formats.ytvis import write_predictions

COLUMNS = ("video", "frame", "time", "track", "class", "score", "x", "y", "width", "height", "area")


class SupervisionFrames(Sequence[Any]):
    """One `supervision.Detections` per frame, made when it is read: a video of masks would be large.

    `to_supervision` makes it.

    Args:
        prediction: The tracks.
        detections: The class `supervision.Detections`.
    """

    def __init__(self, prediction: Prediction, detections: Any) -> None:
        self._prediction = prediction
        self._detections = detections

    def __len__(self) -> int:
        return self._prediction.length

    @overload
    def __getitem__(self, t: int) -> Any: ...
    @overload
    def __getitem__(self, t: slice) -> list[Any]: ...
    def __getitem__(self, t: int | slice) -> Any:
        frames = range(len(self))[t]
        if isinstance(frames, range):
            return [self[frame] for frame in frames]
        return _detections(self._detections, self._prediction, frames)


def to_supervision(prediction: Prediction) -> SupervisionFrames:
    """A sequence of one `supervision.Detections` per frame.

    xyxy float32 [N, 4], mask bool [N, H, W], confidence float32 [N], class_id int [N], tracker_id int [N], and the
    class names as data["class_name"]. Raises InputError if supervision is not installed.
    """
    return SupervisionFrames(prediction, _module("supervision").Detections)


def to_coco(prediction: Prediction) -> dict[str, Any]:
    """COCO's format with tracks: videos, images, categories, and an annotation for each (object, frame).

    An annotation has its track_id and score, segmentation (compressed RLE), bbox (x, y, width, height) and area. Ids
    count from 1; images are called `<video>/00000.jpg`, ... .

    >>> from tubelet.core import masks
    >>> from tubelet.inference.conversions import to_coco
    >>> rle = masks.encode(np.ones((1, 4, 6), bool))[0]
    >>> track = tubelet.Track(id=7, label=0, score=0.9, rles=(None, rle))
    >>> prediction = tubelet.Prediction(video="v", size=(4, 6), length=2, tracks=(track,), classes=("fish",))
    >>> annotation = to_coco(prediction)["annotations"][0]
    >>> annotation["image_id"], annotation["track_id"], annotation["bbox"]
    (2, 7, [0.0, 0.0, 6.0, 4.0])
    """
    height, width = prediction.size
    video = plain(prediction.video)

    images = []
    for t in range(prediction.length):
        file_name = f"{video}/{t:05d}.jpg"
        image = {"id": t + 1, "video_id": 1, "frame_id": t, "file_name": file_name, "height": height, "width": width}
        images.append(image)

    annotations = []
    for number, (track, t, rle) in enumerate(_visible(prediction), start=1):
        annotation = {
            "id": number,
            "video_id": 1,
            "image_id": t + 1,
            "track_id": track.id,
            "category_id": track.label + 1,
            "score": track.score,
            "iscrowd": 0,
            "segmentation": masks.to_json(rle),
            "bbox": _xywh(rle),
            "area": masks.areas([rle])[0].item(),
        }
        annotations.append(annotation)

    return {
        "videos": [{"id": 1, "name": video}],
        "images": images,
        "categories": [{"id": number, "name": plain(name)} for number, name in enumerate(prediction.classes, start=1)],
        "annotations": annotations,
    }


def to_ytvis(prediction: Prediction) -> dict[str, Any]:
    """YouTube-VIS's data-set format, exactly as in predictions.json: videos, categories, annotations with scores."""
    with tempfile.TemporaryDirectory() as folder:  # one writer defines the format
        path = Path(folder) / "predictions.json"
        write_predictions(path, [prediction])
        document: dict[str, Any] = read_json(path)
    return document


def to_davis(prediction: Prediction, source: Video, folder: str | Path) -> Omissions:
    """Write DAVIS's label maps, `folder`/Annotations/<video>/00000.png, ...: pixel value n is the n-th track.

    Where objects overlap, the earlier track has the pixel. Returns what the format cannot store. Raises InputError for
    more than 254 objects, or if `folder` is not empty.
    """
    tracks = tuple(replace(track, id=number) for number, track in enumerate(prediction.tracks, start=1))
    video = replace(source, id=prediction.video, tracks=tracks)
    folder = as_path(folder, "the folder of label maps")
    return davis.write(folder, VideoSet(videos=(video,), classes=prediction.classes), frames=False)


def to_pandas(prediction: Prediction, source: Video) -> Any:
    """A DataFrame with one row per (object, frame) and the columns of COLUMNS; seconds and pixels.

    Raises InputError if pandas is not installed.
    """
    rows = []
    for track, t, rle in _visible(prediction):
        name = prediction.classes[track.label]
        area = masks.areas([rle])[0].item()
        rows.append((prediction.video, t, source.time(t), track.id, name, track.score, *_xywh(rle), area))
    return _module("pandas").DataFrame(rows, columns=list(COLUMNS))


def _detections(detections: Any, prediction: Prediction, t: int) -> Any:
    seen = prediction.in_frame(t)
    tracks = [track for track, _ in seen]
    rles = [rle for _, rle in seen]
    binary = masks.decode(rles) if rles else np.zeros((0, *prediction.size), np.uint8)
    names = [prediction.classes[track.label] for track in tracks]
    return detections(
        xyxy=masks.boxes(rles).astype(np.float32),
        mask=np.ascontiguousarray(binary).view(bool),
        confidence=np.array([track.score for track in tracks], np.float32),
        class_id=np.array([track.label for track in tracks], int),
        tracker_id=np.array([track.id for track in tracks], int),
        data={"class_name": np.array(names, str)},
    )


def _visible(prediction: Prediction) -> Iterator[tuple[Track, int, RLE]]:
    """Each track, frame and mask where the track has one: tracks in their order, frames in time."""
    for track in prediction.tracks:
        for t, rle in track.entries.items():
            yield track, t, rle


def _xywh(rle: RLE) -> list[float]:
    x1, y1, x2, y2 = masks.boxes([rle])[0].tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise InputError(f"this conversion needs {name}: pip install {name}") from None
