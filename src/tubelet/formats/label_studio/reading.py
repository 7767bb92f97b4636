"""Read Label Studio's JSON export, beside the images or videos that were annotated.

    [{"data": {"image": "/data/upload/1/0a1b2c3d-cat.jpg"},
      "annotations": [{"result": [{"id": "x7f", "type": "brushlabels", "original_width": 6, "original_height": 4,
                                   "value": {"brushlabels": ["cat"], "format": "rle", "rle": [0, 0, ...]}}]}]}]

Images have masks: brushes and polygons; each image is a video of one frame. Videos have boxes with key frames on a time
line (`videorectangle`): between two of them a box is interpolated, after one that is switched off the object is absent.
There is no outline, so the box is the mask. All else, such as rectangles of images, is left out and counted.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.masks import RLE
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.documents import decode_json_as
from tubelet.core.untrusted.images import check_header
from tubelet.formats.files import Files, Folder, FormatWarning, StoredFrames, check_size, open_files
from tubelet.formats.label_studio import brush
from tubelet.formats.label_studio.document import Region, Task, is_video
from tubelet.formats.label_studio.time_line import boxes_as_masks, polygon_as_mask
from tubelet.formats.lazy import LazyVideos
from tubelet.video.reader import open_video

UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file


def read(path: str | Path) -> VideoSet:
    """Read an export: the JSON file, or the folder or archive that has it as its only JSON file.

    Images and videos are looked for by their names, in the folder of the JSON and below.

    Raises InputError if there is no such file, FormatError if it is not of this form.

    Example:
        >>> import msgspec, tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats import label_studio
        >>> triangle = {"points": [[0, 0], [100, 0], [100, 100]], "polygonlabels": ["dog"]}
        >>> size = {"original_width": 6, "original_height": 4}
        >>> region = {"id": "x7f", "type": "polygonlabels", "value": triangle, **size}
        >>> task = {"data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"}, "annotations": [{"result": [region]}]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "project-1.json").write_bytes(msgspec.json.encode([task]))
        ...     videos = label_studio.read(folder)
        ...     videos.classes, videos.videos[0]
        (('dog',), Video(id='0a1b2c3d-a', size=(4, 6), frames=1, fps=25, tracks=1))
    """
    path = Path(path)
    files = open_files(path.parent if path.suffix.lower() == ".json" else path)
    document = path.name if path.suffix.lower() == ".json" else _only_document(files)
    where = files.where(document)
    tasks: list[Task] = decode_json_as(
        list[Task], files.read(document), where, complaint="expected Label Studio's JSON form (not JSON-MIN)"
    )

    for number, task in enumerate(tasks, start=1):
        if task.source is None:
            raise FormatError(f"{where}: task {number} names no image or video")
    _warn(tasks, where)

    classes = sorted({label for task in tasks for _, label in task.objects})
    return VideoSet(videos=_Tasks(files, tasks, tuple(classes)), classes=tuple(classes))


def _only_document(files: Files) -> str:
    documents = [name for name in files.names if name.endswith(".json")]
    if len(documents) != 1:
        raise InputError(f"{files}: expected one JSON file of Label Studio, found {len(documents)}")
    return documents[0]


def _warn(tasks: Sequence[Task], where: str) -> None:
    """Say what is left out, and which masks are boxes."""
    left_out: Counter[str] = Counter()
    boxes = 0
    for task in tasks:
        drawn = {region.id for region in task.regions if region.has_mask}
        left_out.update(region.type for region in task.regions if region.id not in drawn)
        boxes += sum(region.value.sequence is not None for region, _ in task.objects)

    if left_out:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(left_out.items()))
        warnings.warn(f"{where}: regions without a mask are left out: {kinds}", FormatWarning, stacklevel=3)
    if boxes:
        what = f"{boxes} objects of videos have boxes and no outlines; the boxes are their masks"
        warnings.warn(f"{where}: {what}", FormatWarning, stacklevel=3)
    others = sum(not annotation.was_cancelled for task in tasks for annotation in task.annotations[1:])
    if others:
        what = f"{others} further annotations of tasks that were annotated more than once are left out"
        warnings.warn(f"{where}: {what}", FormatWarning, stacklevel=3)


class _Tasks(LazyVideos[Task]):
    cache_size = 1024

    def __init__(self, files: Files, tasks: Sequence[Task], classes: tuple[str, ...]) -> None:
        super().__init__(tasks)
        self.files = files
        self.classes = classes
        self.names = {PurePosixPath(name).name: name for name in reversed(files.names)}

    def make(self, entry: Task) -> Video:
        source = entry.source or ""
        name = self.names.get(source) or self.names.get(UPLOADED.sub("", source)) or source
        return self._video(entry, name) if is_video(name) else self._image(entry, name)

    def _image(self, task: Task, name: str) -> Video:
        where = self.files.where(name)
        size = self._stated_size(task, where) or check_header(self.files.read(name), where).size
        rles = [[self._mask(region, size, f"{where}: region {region.id}")] for region, _ in task.objects]

        frames = StoredFrames(self.files, (name,), size)
        id = str(PurePosixPath(task.source or "").with_suffix(""))
        return Video(id=id, size=size, frames=frames, tracks=self._tracks(task, rles))

    def _stated_size(self, task: Task, where: str) -> tuple[int, int] | None:
        stated = [(region.original_height, region.original_width) for region, _ in task.objects]
        return check_size(*stated[0], where) if stated else None

    def _mask(self, region: Region, size: tuple[int, int], where: str) -> RLE | None:
        value = region.value
        if value.rle is not None:
            if not all(0 <= byte <= 255 for byte in value.rle):
                raise FormatError(f"{where}: expected a brush mask as bytes, numbers from 0 to 255")
            painted = brush.decode(bytes(value.rle), size, where)
            return masks.encode(painted[None])[0] if painted.any() else None
        if value.points is not None:
            return polygon_as_mask(value.points, size, where)
        raise FormatError(f"{where}: a box on a time line, in an image")

    def _video(self, task: Task, name: str) -> Video:
        if not isinstance(self.files, Folder):
            raise InputError(f"{self.files.where(name)}: a video in an archive is not read; unpack it")
        video = open_video(self.files.path / name)
        rles = []
        for region, _ in task.objects:
            if region.value.sequence is None:
                raise FormatError(f"{self.files.where(name)}: region {region.id}: expected key frames of a video")
            rles.append(list(boxes_as_masks(region, video, self.files.where(name))))
        return replace(video, tracks=self._tracks(task, rles))

    def _tracks(self, task: Task, rles: Sequence[list[RLE | None]]) -> tuple[Track, ...]:
        """Number the objects from 1: ids of regions are text."""
        named = zip(task.objects, rles, strict=True)
        return tuple(
            Track(id=number, label=self.classes.index(label), score=1.0, rles=tuple(of_object))
            for number, ((_, label), of_object) in enumerate(named, start=1)
        )
