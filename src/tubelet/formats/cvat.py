"""Read CVAT for video 1.1: XML with one track per object and one shape per frame.

A task is a video: annotations.xml beside images/frame_000000.png and so on, as a folder or a zip archive. Several tasks
are folders or archives side by side.

Masks and polygons are read. A mask is valid until the next keyframe, as in CVAT, so a frame without a shape takes the
mask of the frame before. Other shapes, such as rectangles, are skipped; a warning counts them.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.masks import RLE
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.documents import Element, parse_xml
from tubelet.core.untrusted.images import check_header
from tubelet.formats.files import Archive, Files, Folder, FormatWarning, StoredFrames, check_size, is_image, open_files
from tubelet.formats.lazy import LazyVideos

_MAX_FRAMES = 1_000_000
CROWD = "iscrowd"  # name of the attribute that marks regions to ignore


class _Task(NamedTuple):
    name: str
    files: Files
    document: str  # path of the XML in `files`
    frames: tuple[str, ...]  # paths of the images


def read(root: str | Path, *, classes: Sequence[str] | None = None) -> VideoSet:
    """Read all tasks of a folder, or of one XML file or zip archive, as videos.

    Tracks are read when a video is used.

    Args:
        root: The folder or file.
        classes: Names of the classes; by default all labels, in the order in which they appear.

    Raises:
        InputError: if there is no annotations.xml.
        FormatError: names file, track and frame, if the XML is not of this format.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import cvat, cvat_write
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[torch.zeros(3, 4, 6, dtype=torch.uint8)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = cvat_write.write(Path(folder, "set"), VideoSet(videos=[video], classes=("dog",)))
        ...     cvat.read(Path(folder, "set")).videos[0]
        Video(id='dog', size=(4, 6), frames=1, fps=25, tracks=0)
    """
    tasks = _tasks(Path(root))
    names = list(classes or ())
    if classes is None:
        for task in tasks:
            names += [name for name in _labels(_parse(task)) if name not in names]
    return VideoSet(videos=_Tasks(tasks, tuple(names)), classes=tuple(names))


class _Tasks(LazyVideos[_Task]):
    cache_size = 1024

    def __init__(self, tasks: Sequence[_Task], classes: tuple[str, ...]) -> None:
        super().__init__(tasks)
        self.classes = classes

    def make(self, entry: _Task) -> Video:
        tree = _parse(entry)
        where = entry.files.where(entry.document)
        size, length = _extent(tree, entry, where)

        reader = _TrackReader(where, size, length, self.classes)
        tracks = [reader.track(element, n) for n, element in enumerate(tree.iter("track"))]
        reader.warn()

        folder = PurePosixPath(entry.document).parent / "images"
        names = entry.frames or tuple(str(folder / f"frame_{t:06d}.png") for t in range(length))
        frames = StoredFrames(entry.files, names[:length], size)
        non_empty = tuple(track for track in tracks if track is not None)
        return Video(id=entry.name, size=size, frames=frames, tracks=non_empty)


class _TrackReader:
    """Reads the tracks of one document and counts what it skips."""

    def __init__(self, where: str, size: tuple[int, int], length: int, classes: tuple[str, ...]) -> None:
        self.where = where
        self.size = size
        self.length = length
        self.classes = classes
        self.warnings: Counter[str] = Counter()

    def track(self, element: Element, position: int) -> Track | None:
        """Read one object; None if it has no mask at all."""
        number = _integer(element.get("id", str(position)), f"{self.where}: track {position}: id")
        here = f"{self.where}: track {number}"
        name = element.get("label", "")
        if name not in self.classes:
            raise FormatError(f"{here}: the label {name!r} is not among {', '.join(self.classes)}")

        shapes: dict[int, RLE | None] = {}
        crowd = False
        for shape in element:
            if shape.tag not in ("mask", "polygon"):
                self.warnings[f"shapes of the kind {shape.tag!r} left out"] += 1
                continue

            frame = _integer(shape.get("frame", ""), f"{here}: frame")
            if frame >= self.length:
                raise FormatError(f"{here}: a shape in frame {frame} of a video of {self.length} frames")

            crowd = crowd or any(a.get("name") == CROWD and a.text == "true" for a in shape)
            shapes[frame] = None if shape.get("outside") == "1" else self._mask(shape, f"{here}, frame {frame}")

        if not any(shapes.values()):
            return None
        rles = self._fill_gaps(shapes)
        return Track(id=number, label=self.classes.index(name), score=1.0, rles=tuple(rles), ignore=crowd)

    def warn(self) -> None:
        """Give one warning per kind, with its count."""
        for kind, count in self.warnings.items():
            warnings.warn(f"{self.where}: {kind}: {count}", FormatWarning, stacklevel=2)

    def _fill_gaps(self, shapes: dict[int, RLE | None]) -> list[RLE | None]:
        """One mask per frame: a frame without a shape takes that of the frame before."""
        rles: list[RLE | None] = []
        for t in range(self.length):
            previous = rles[-1] if rles else None
            if t not in shapes and previous is not None:
                self.warnings["frames without a shape take the mask of the frame before"] += 1
            rles.append(shapes.get(t, previous))
        return rles

    def _mask(self, shape: Element, where: str) -> RLE | None:
        if shape.tag == "polygon":
            pairs = shape.get("points", "").split(";")
            points = [_number(value, where) for pair in pairs for value in pair.split(",")]
            return masks.from_json([points], self.size, where)

        left, top, width, height = (
            _integer(shape.get(side, ""), f"{where}: {side}") for side in ("left", "top", "width", "height")
        )
        runs = [_integer(run, f"{where}: rle") for run in shape.get("rle", "").split(",")]
        is_inside = left + width <= self.size[1] and top + height <= self.size[0]
        if not is_inside or sum(runs) != width * height:
            given = f"{sum(runs)} pixels for {width}x{height} at {left}, {top}"
            raise FormatError(f"{where}: a mask that does not fit: {given}")

        values = np.arange(len(runs)) % 2 == 1  # runs alternate, background first
        mask = np.zeros(self.size, bool)
        mask[top : top + height, left : left + width] = np.repeat(values, runs).reshape(height, width)
        return masks.encode(mask[None])[0] if mask.any() else None


def _tasks(path: Path) -> list[_Task]:
    if path.suffix.lower() == ".xml":
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        return [_task(Folder(path.parent), path.name, path.stem)]

    files = open_files(path)
    documents = [name for name in files.names if PurePosixPath(name).name == "annotations.xml"]
    tasks = [_task(files, name, PurePosixPath(name).parent.name or path.stem) for name in documents]
    if isinstance(files, Folder):
        archives = [Archive(path / name) for name in files.names if name.lower().endswith(".zip")]
        exports = [archive for archive in archives if "annotations.xml" in archive.names]
        tasks += [_task(archive, "annotations.xml", archive.path.stem) for archive in exports]

    if not tasks:
        raise InputError(f"{path}: expected annotations.xml of CVAT for video 1.1")
    return tasks


def _task(files: Files, document: str, name: str) -> _Task:
    folder = str(PurePosixPath(document).parent / "images")
    frames = sorted(path for path in files.below(folder) if is_image(path))
    return _Task(name, files, document, tuple(frames))


def _parse(task: _Task) -> Element:
    data = task.files.read(task.document)
    where = task.files.where(task.document)
    tree = parse_xml(data, where)
    is_for_images = tree.find("image") is not None and tree.find("track") is None
    if tree.tag != "annotations" or is_for_images:
        raise FormatError(f"{where}: expected CVAT for video 1.1, not for images or another form")
    return tree


def _labels(tree: Element) -> list[str]:
    declared = [element.findtext("name", "") for element in tree.iter("label")]
    used = [track.get("label", "") for track in tree.iter("track")]
    return list(dict.fromkeys([*declared, *used]))


def _extent(tree: Element, task: _Task, where: str) -> tuple[tuple[int, int], int]:
    """Size (height, width) and length of the video: from the XML, else from the images."""
    stated = tree.find(".//original_size")
    if stated is not None:
        height, width = (_integer(stated.findtext(side, ""), f"{where}: {side}") for side in ("height", "width"))
        size = check_size(height, width, where)
    elif task.frames:
        size = check_header(task.files.read(task.frames[0]), task.files.where(task.frames[0])).size
    else:
        raise FormatError(f"{where}: neither original_size nor images tell the size of the frames")

    text = tree.findtext(".//task/size") or tree.findtext(".//job/size")
    if text:
        length = _integer(text, f"{where}: size")
    else:
        length = len(task.frames) or _last_frame(tree, where) + 1

    if not 1 <= length <= _MAX_FRAMES:
        raise FormatError(f"{where}: a video of {length} frames is not supported")
    if task.frames and len(task.frames) != length:
        raise FormatError(f"{where}: {len(task.frames)} images for {length} frames")
    return size, length


def _last_frame(tree: Element, where: str) -> int:
    shapes = [shape for track in tree.iter("track") for shape in track]
    return max((_integer(shape.get("frame", ""), f"{where}: frame") for shape in shapes), default=0)


def _integer(text: str, where: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 12):
        raise FormatError(f"{where}: expected a whole number, got {text!r}")
    return int(text)


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise FormatError(f"{where}: expected points as x,y;x,y;..., got {text!r}") from None
