"""Boxes of Label Studio's videos: key frames on a time line, and what is between them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from tubelet.core import masks
from tubelet.core.masks import RLE
from tubelet.core.types import Video
from tubelet.formats.label_studio.document import KeyFrame, Region

Points = Sequence[tuple[float, float]]


def boxes_as_masks(region: Region, video: Video, where: str) -> Iterator[RLE | None]:
    """Yield the box of a region in each frame of its video, as a mask; None where the object is absent.

    Label Studio counts frames by a rate of its own where it could not tell that of the video; then times decide.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.formats.label_studio.document import KeyFrame, Region, Value
        >>> from tubelet.formats.label_studio.time_line import boxes_as_masks
        >>> first = KeyFrame(frame=1, x=0, y=0, width=50, height=100)
        >>> last = KeyFrame(frame=3, x=50, y=0, width=50, height=100, enabled=False)
        >>> region = Region(value=Value(sequence=[first, last]))
        >>> video = tubelet.open_video(np.zeros((4, 4, 8, 3), np.uint8))
        >>> rles = list(boxes_as_masks(region, video, "a file"))
        >>> [None if rle is None else masks.boxes([rle])[0].tolist() for rle in rles]
        [[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0], [4.0, 0.0, 8.0, 4.0], None]
    """
    keys = sorted(region.value.sequence or (), key=lambda key: key.frame)
    for t in range(len(video)):
        box = _box_at(_frame_number(region, video, t), keys)
        here = f"{where}: region {region.id}, frame {t}"
        yield None if box is None else polygon_as_mask(_corners(box, video.size), video.size, here)


def polygon_as_mask(points: Points, size: tuple[int, int], where: str) -> RLE | None:
    """Return the mask of a polygon whose points are percent of (height, width); None if it covers no pixel.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.formats.label_studio.time_line import polygon_as_mask
        >>> rle = polygon_as_mask([(0, 0), (50, 0), (50, 100), (0, 100)], (4, 8), "a file")
        >>> masks.boxes([rle])[0].tolist()
        [0.0, 0.0, 4.0, 4.0]
    """
    height, width = size
    flat = [number for x, y in points for number in (x / 100 * width, y / 100 * height)]
    rle = masks.from_json([flat], size, where)
    return rle if rle is not None and masks.areas([rle])[0] > 0 else None


def _frame_number(region: Region, video: Video, t: int) -> float:
    """Label Studio's number of frame t; it counts from 1."""
    stated = region.value
    if stated.frames_count in (0, len(video)) or stated.duration <= 0:
        return t + 1
    return 1 + video.time(t) * stated.frames_count / stated.duration


def _box_at(frame: float, keys: Sequence[KeyFrame]) -> KeyFrame | None:
    """The box between two key frames; the last one stays to the end, if it is not where the object leaves."""
    position = bisect_right([key.frame for key in keys], frame + 0.5) - 1
    if position < 0:
        return None

    previous = keys[position]
    if not previous.enabled:
        return previous if frame < previous.frame + 0.5 else None
    is_last = position == len(keys) - 1
    return previous if is_last else _between(previous, keys[position + 1], frame)


def _between(first: KeyFrame, second: KeyFrame, frame: float) -> KeyFrame:
    share = np.clip((frame - first.frame) / (second.frame - first.frame), 0, 1)
    sides = [np.array([key.x, key.y, key.width, key.height, key.rotation]) for key in (first, second)]
    return KeyFrame(frame, *(sides[0] + share * (sides[1] - sides[0])).tolist())


def _corners(box: KeyFrame, size: tuple[int, int]) -> Points:
    """The corners of a box, which is turned about its left upper one, in percent."""
    height, width = size
    angle = np.radians(box.rotation)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    pixels = np.array([width, height])  # the angle is one of pixels, not of percent
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (box.width, box.height) * pixels
    return [tuple(corner) for corner in ((box.x, box.y) + corners @ turn / pixels).tolist()]
