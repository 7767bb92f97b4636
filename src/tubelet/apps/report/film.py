"""Film strips of one video: truth above, prediction below, in the frames that matter."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from tubelet.core import masks
from tubelet.core.errors import InputError
from tubelet.core.records import Track, Video
from tubelet.drawing.overlay import draw

WIDTH = 300  # pixels of a picture
QUALITY = 78  # of its JPEG
BACKGROUND = 96  # grey, where there are no frames to show


def has_frames(videos: Sequence[Video]) -> bool:
    """Whether the first frame of the first video can be read."""
    try:
        return bool(videos) and videos[0].frames[0] is not None
    except InputError:
        return False


def chosen(length: int, wanted: Sequence[int], count: int) -> list[int]:
    """Choose at most `count` frames: the wanted ones, thinned out evenly, and some between them.

    Example:
        >>> from tubelet.apps.report.film import chosen
        >>> chosen(10, wanted=[4, 5], count=4)
        [0, 4, 5, 9]
    """
    frames = _thinned(sorted(set(wanted)), max(count - 2, 1))
    others = [t for t in _thinned(range(length), count) if t not in frames]
    return sorted([*frames, *_thinned(others, count - len(frames))])


def _thinned(frames: Sequence[int], count: int) -> list[int]:
    if len(frames) <= count:
        return list(frames)
    return [frames[round(n)] for n in np.linspace(0, len(frames) - 1, count)] if count > 0 else []


def picture(video: Video, t: int, tracks: Sequence[Track], classes: Sequence[str], *, frames: bool) -> str:
    """Draw one frame with the given tracks, as a data URL of a JPEG."""
    height, width = video.shown_size
    scale = min(1.0, WIDTH / width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    if frames:
        image = video.frames[t].permute(1, 2, 0).numpy()
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    else:
        image = np.full((size[1], size[0], 3), BACKGROUND, np.uint8)
    shown = [(track, rle) for track in tracks if (rle := track.rles[t]) is not None]
    planes = np.zeros((len(shown), size[1], size[0]), bool)
    for plane, (_, rle) in zip(planes, shown, strict=True):
        plane[:] = cv2.resize(masks.decode([rle])[0], size, interpolation=cv2.INTER_AREA) > 0
    names = [classes[track.label] for track, _ in shown]
    drawn = draw(image, planes, [track.id for track, _ in shown], names, [track.score for track, _ in shown])
    written, code = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert written, "an image in memory can be encoded"
    return "data:image/jpeg;base64," + base64.b64encode(code.tobytes()).decode("ascii")
