"""Videos of CVAT for video 1.1: XML with one track per object and one shape per frame.

A mask is valid until the next keyframe, as in CVAT, so a frame without a shape takes the mask of the frame before. In a
task with a frame step, shapes and images have the numbers of the whole video: 0, 5, 10 are its frames 0, 1, 2.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tubelet.core.errors import FormatError
from tubelet.core.masks import RLE
from tubelet.core.types import Track, Video
from tubelet.core.untrusted.documents import Element
from tubelet.core.untrusted.images import check_header
from tubelet.formats.cvat.shapes import WITH_MASK, integer, is_crowd, mask_of, warn
from tubelet.formats.cvat.tasks import CvatTask
from tubelet.formats.files import StoredFrames, check_size, is_image
from tubelet.formats.lazy import LazyVideos

_MAX_FRAMES = 1_000_000


class _Numbering(NamedTuple):
    """How the frames of a task are numbered in its XML."""

    first: int = 0
    step: int = 1

    def position(self, number: int) -> int | None:
        """Which frame of the task has this number."""
        position, rest = divmod(number - self.first, self.step)
        return position if position >= 0 and rest == 0 else None


class CvatVideos(LazyVideos[CvatTask]):
    """The tasks as videos.

    Example:
        >>> from tubelet.formats.cvat.videos import CvatVideos
        >>> len(CvatVideos([], classes=("dog",)))
        0
    """

    cache_size = 1024

    def __init__(self, tasks: Sequence[CvatTask], classes: tuple[str, ...]) -> None:
        super().__init__(tasks)
        self.classes = classes

    def make(self, entry: CvatTask) -> Video:
        tree = entry.parse()
        images = _images(entry)
        numbers = list(_frame_numbers(tree, entry.where))
        size, length = _extent(tree, images, numbers, entry)
        numbering = _numbering(tree, numbers, length, entry.where)

        reader = _TrackReader(entry.where, size, length, numbering, self.classes)
        tracks = [reader.track(element, n) for n, element in enumerate(tree.iter("track"))]
        warn(reader.warnings, entry.where)

        folder = f"{entry.folder}/images" if entry.folder else "images"
        usual = [f"{folder}/frame_{numbering.first + t * numbering.step:06d}.png" for t in range(length)]
        frames = StoredFrames(entry.files, (images or usual)[:length], size)
        non_empty = tuple(track for track in tracks if track is not None)
        return Video(id=entry.name, size=size, frames=frames, tracks=non_empty)


class _TrackReader:
    """Reads the tracks of one document and counts what it skips."""

    def __init__(
        self, where: str, size: tuple[int, int], length: int, numbering: _Numbering, classes: tuple[str, ...]
    ) -> None:
        self.where = where
        self.size = size
        self.length = length
        self.numbering = numbering
        self.classes = classes
        self.warnings: Counter[str] = Counter()

    def track(self, element: Element, position: int) -> Track | None:
        """Read one object; None if it has no mask at all."""
        id = integer(element.get("id", str(position)), f"{self.where}: track {position}: id")
        here = f"{self.where}: track {id}"
        name = element.get("label", "")
        if name not in self.classes:
            raise FormatError(f"{here}: the label {name!r} is not among {', '.join(self.classes)}")

        shapes: dict[int, RLE | None] = {}
        crowd = False
        for shape in element:
            if shape.tag not in WITH_MASK:
                self.warnings[f"shapes of the kind {shape.tag!r} left out"] += 1
                continue

            number = _frame(shape, here)
            frame = self.numbering.position(number)
            if frame is None or frame >= self.length:
                raise FormatError(f"{here}: a shape in frame {number} of a video of {self.length} frames")

            crowd = crowd or is_crowd(shape)
            is_outside = shape.get("outside") == "1"
            shapes[frame] = None if is_outside else mask_of(shape, self.size, f"{here}, frame {number}")

        if not any(shapes.values()):
            return None
        rles = self._fill_gaps(shapes)
        return Track(id=id, label=self.classes.index(name), score=1.0, rles=tuple(rles), ignore=crowd)

    def _fill_gaps(self, shapes: dict[int, RLE | None]) -> list[RLE | None]:
        """One mask per frame: a frame without a shape takes that of the frame before."""
        rles: list[RLE | None] = []
        for t in range(self.length):
            previous = rles[-1] if rles else None
            if t not in shapes and previous is not None:
                self.warnings["frames without a shape take the mask of the frame before"] += 1
            rles.append(shapes.get(t, previous))
        return rles


def _images(task: CvatTask) -> list[str]:
    """The images of the task, in order."""
    folder = f"{task.folder}/images" if task.folder else "images"
    return sorted(path for path in task.files.below(folder) if is_image(path))


def _extent(
    tree: Element, images: Sequence[str], numbers: Sequence[int], task: CvatTask
) -> tuple[tuple[int, int], int]:
    """Size (height, width) and length of the video: from the XML, else from the images."""
    where = task.where
    stated = tree.find(".//original_size")
    if stated is not None:
        height, width = (integer(stated.findtext(side, ""), f"{where}: {side}") for side in ("height", "width"))
        size = check_size(height, width, where)
    elif images:
        size = check_header(task.files.read(images[0]), task.files.where(images[0])).size
    else:
        raise FormatError(f"{where}: neither original_size nor images tell the size of the frames")

    text = tree.findtext(".//task/size") or tree.findtext(".//job/size")
    length = integer(text, f"{where}: size") if text else len(images) or max(numbers, default=0) + 1
    if not 1 <= length <= _MAX_FRAMES:
        raise FormatError(f"{where}: a video of {length} frames is not supported")
    if images and len(images) != length:
        raise FormatError(f"{where}: {len(images)} images for {length} frames")
    return size, length


def _numbering(tree: Element, numbers: Sequence[int], length: int, where: str) -> _Numbering:
    """The numbering by the task's first frame and step, if all numbers are of it; else from 0 on."""
    first = tree.findtext(".//start_frame") or "0"
    step = re.fullmatch(r"\s*step\s*=\s*([1-9]\d{0,5})\s*", tree.findtext(".//frame_filter") or "")
    stated = _Numbering(integer(first, f"{where}: start_frame"), int(step[1]) if step else 1)

    positions = [stated.position(number) for number in numbers]
    is_right = all(position is not None and position < length for position in positions)
    return stated if is_right else _Numbering()


def _frame_numbers(tree: Element, where: str) -> Iterator[int]:
    for track in tree.iter("track"):
        here = f"{where}: track {track.get('id', '')}"
        yield from (_frame(shape, here) for shape in track if shape.tag in WITH_MASK)


def _frame(shape: Element, where: str) -> int:
    return integer(shape.get("frame", ""), f"{where}: frame")
