"""CVAT for video 1.1: XML with one track per object, shapes per frame, as CVAT exports and imports it.

One task is a video: annotations.xml beside images/frame_000000.png ..., as a folder or a zip archive; several tasks lie
in folders or archives side by side. Masks and polygons are read. CVAT shows a mask until the next keyframe, so a frame
between two that a file leaves out takes the mask of the earlier one. Rectangles and lines are no masks: left out, with
a warning that counts them.
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

_LONGEST = 1_000_000  # frames
CROWD = "iscrowd"


class _Task(NamedTuple):
    name: str
    files: Files
    document: str
    frames: tuple[str, ...]


def read(root: str | Path, *, classes: Sequence[str] | None = None) -> VideoSet:
    """The tasks below a folder, or of one XML file or archive, as videos; classes in the order in which labels appear.

    Raises InputError where there is no annotations.xml, FormatError, which names file, track and frame, for what is
    not of the form.
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
        base = PurePosixPath(entry.document).parent / "images"
        names = entry.frames or tuple(str(base / f"frame_{t:06d}.png") for t in range(length))
        frames = StoredFrames(entry.files, names[:length], size)
        seen = tuple(track for track in tracks if track is not None)
        return Video(id=entry.name, size=size, frames=frames, tracks=seen)


class _TrackReader:
    """Reads the tracks of one document, counting what it leaves out."""

    def __init__(self, where: str, size: tuple[int, int], length: int, classes: tuple[str, ...]) -> None:
        self.where, self.size, self.length, self.classes = where, size, length, classes
        self.odd: Counter[str] = Counter()

    def track(self, element: Element, place: int) -> Track | None:
        """One object; None where it has no mask at all."""
        number = _integer(element.get("id", str(place)), f"{self.where}: track {place}: id")
        here = f"{self.where}: track {number}"
        name = element.get("label", "")
        if name not in self.classes:
            raise FormatError(f"{here}: the label {name!r} is not among {', '.join(self.classes)}")
        shapes: dict[int, RLE | None] = {}
        crowd = False
        for shape in element:
            if shape.tag not in ("mask", "polygon"):
                self.odd[f"shapes of the kind {shape.tag!r} left out"] += 1
                continue
            frame = _integer(shape.get("frame", ""), f"{here}: frame")
            if frame >= self.length:
                raise FormatError(f"{here}: a shape in frame {frame} of a video of {self.length} frames")
            crowd = crowd or any(a.get("name") == CROWD and a.text == "true" for a in shape)
            shapes[frame] = None if shape.get("outside") == "1" else self._mask(shape, f"{here}, frame {frame}")
        if not any(shapes.values()):
            return None
        column = self._hold(shapes)
        return Track(id=number, label=self.classes.index(name), score=1.0, rles=tuple(column), ignore=crowd)

    def warn(self) -> None:
        """One warning per kind of oddity."""
        for kind, count in self.odd.items():
            warnings.warn(f"{self.where}: {kind}: {count}", FormatWarning, stacklevel=2)

    def _hold(self, shapes: dict[int, RLE | None]) -> list[RLE | None]:
        column: list[RLE | None] = []
        for t in range(self.length):
            last = column[-1] if column else None
            if t not in shapes and last is not None:
                self.odd["frames without a shape take the mask of the frame before"] += 1
            column.append(shapes.get(t, last))
        return column

    def _mask(self, shape: Element, where: str) -> RLE | None:
        if shape.tag == "polygon":
            points = [_number(v, where) for pair in shape.get("points", "").split(";") for v in pair.split(",")]
            return masks.from_json([points], self.size, where)
        left, top, width, height = (
            _integer(shape.get(side, ""), f"{where}: {side}") for side in ("left", "top", "width", "height")
        )
        runs = [_integer(run, f"{where}: rle") for run in shape.get("rle", "").split(",")]
        if left + width > self.size[1] or top + height > self.size[0] or sum(runs) != width * height:
            came = f"{sum(runs)} pixels for {width}x{height} at {left}, {top}"
            raise FormatError(f"{where}: a mask that does not fit: {came}")
        values = np.arange(len(runs)) % 2 == 1
        full = np.zeros(self.size, bool)
        full[top : top + height, left : left + width] = np.repeat(values, runs).reshape(height, width)
        return masks.encode(full[None])[0] if full.any() else None


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
        held = [archive for archive in archives if "annotations.xml" in archive.names]
        tasks += [_task(archive, "annotations.xml", archive.path.stem) for archive in held]
    if not tasks:
        raise InputError(f"{path}: expected annotations.xml of CVAT for video 1.1")
    return tasks


def _task(files: Files, document: str, name: str) -> _Task:
    base = str(PurePosixPath(document).parent / "images")
    return _Task(name, files, document, tuple(sorted(path for path in files.below(base) if is_image(path))))


def _parse(task: _Task) -> Element:
    data = task.files.read(task.document)
    where = task.files.where(task.document)
    tree = parse_xml(data, where)
    if tree.tag != "annotations" or (tree.find("image") is not None and tree.find("track") is None):
        raise FormatError(f"{where}: expected CVAT for video 1.1, not for images or another form")
    return tree


def _labels(tree: Element) -> list[str]:
    declared = [element.findtext("name", "") for element in tree.iter("label")]
    return list(dict.fromkeys([*declared, *(track.get("label", "") for track in tree.iter("track"))]))


def _extent(tree: Element, task: _Task, where: str) -> tuple[tuple[int, int], int]:
    """Size and length of the video: as stated, else as the images tell."""
    stated = tree.find(".//original_size")
    if stated is not None:
        height, width = (_integer(stated.findtext(side, ""), f"{where}: {side}") for side in ("height", "width"))
        size = check_size(height, width, where)
    elif task.frames:
        size = check_header(task.files.read(task.frames[0]), task.files.where(task.frames[0])).size
    else:
        raise FormatError(f"{where}: neither original_size nor images tell the size of the frames")
    text = tree.findtext(".//task/size") or tree.findtext(".//job/size")
    length = _integer(text, f"{where}: size") if text else len(task.frames) or _last_frame(tree, where) + 1
    if not 1 <= length <= _LONGEST:
        raise FormatError(f"{where}: a video of {length} frames is not supported")
    if task.frames and len(task.frames) != length:
        raise FormatError(f"{where}: {len(task.frames)} images for {length} frames")
    return size, length


def _last_frame(tree: Element, where: str) -> int:
    shapes = [shape for track in tree.iter("track") for shape in track]
    return max((_integer(shape.get("frame", ""), f"{where}: frame") for shape in shapes), default=0)


def _integer(text: str, where: str) -> int:
    if not (text.strip().isascii() and text.strip().isdigit() and len(text.strip()) < 12):
        raise FormatError(f"{where}: expected a whole number, got {text!r}")
    return int(text)


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise FormatError(f"{where}: expected points as x,y;x,y;..., got {text!r}") from None
