"""Images of CVAT for images 1.1: shapes per image, each image a video of one frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.masks import RLE
from tubelet.core.types import Track, Video
from tubelet.core.untrusted.documents import Element
from tubelet.formats.cvat.shapes import WITH_MASK, integer, is_crowd, mask_of, warn
from tubelet.formats.cvat.tasks import CvatTask
from tubelet.formats.files import StoredFrames, check_size, clean_name
from tubelet.formats.lazy import LazyVideos


class ImageEntry(NamedTuple):
    """One image of a task, with its element of the XML."""

    task: CvatTask
    element: Element


def entries_of(task: CvatTask, tree: Element) -> list[ImageEntry]:
    """Return the images of a parsed task; a warning counts shapes that have no mask.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.documents import parse_xml
        >>> from tubelet.formats.cvat.images import entries_of
        >>> from tubelet.formats.cvat.tasks import CvatTask
        >>> from tubelet.formats.files import Folder
        >>> tree = parse_xml(b"<annotations><image id='0' name='a.jpg'/></annotations>", "a file")
        >>> len(entries_of(CvatTask("pets", Folder(Path("pets")), "annotations.xml"), tree))
        1
    """
    images = tree.findall("image")
    others = [shape.tag for image in images for shape in image if shape.tag not in WITH_MASK]
    warn(Counter(f"shapes of the kind {tag!r} left out" for tag in others), task.where)
    return [ImageEntry(task, image) for image in images]


class CvatImages(LazyVideos[ImageEntry]):
    """The images of all tasks, as videos.

    Shapes of one group and label are one object, as in CVAT's own export to COCO.

    Example:
        >>> from tubelet.formats.cvat.images import CvatImages
        >>> len(CvatImages([], classes=("dog",)))
        0
    """

    def __init__(self, entries: Sequence[ImageEntry], classes: tuple[str, ...]) -> None:
        super().__init__(entries)
        self.classes = classes

    def make(self, entry: ImageEntry) -> Video:
        task, element = entry
        name = clean_name(element.get("name", ""), task.where)
        where = f"{task.where}: image {name}"
        height, width = (integer(element.get(side, ""), f"{where}: {side}") for side in ("height", "width"))
        size = check_size(height, width, where)

        frames = StoredFrames(task.files, (_stored_name(entry, name),), size)
        id = str(PurePosixPath(name).with_suffix(""))
        return Video(id=id, size=size, frames=frames, tracks=tuple(self._tracks(element, size, where)))

    def _tracks(self, image: Element, size: tuple[int, int], where: str) -> Iterator[Track]:
        for number, shapes in enumerate(_objects(image), start=1):
            here = f"{where}: object {number}"
            label = shapes[0].get("label", "")
            if label not in self.classes:
                raise FormatError(f"{here}: the label {label!r} is not among {', '.join(self.classes)}")

            rle = _union([mask_of(shape, size, here) for shape in shapes])
            if rle is not None:
                crowd = any(is_crowd(shape) for shape in shapes)
                yield Track(id=number, label=self.classes.index(label), score=1.0, rles=(rle,), ignore=crowd)


def _objects(image: Element) -> list[list[Element]]:
    """The shapes of each object."""
    objects: dict[tuple[str, str], list[Element]] = {}
    for position, shape in enumerate(image):
        if shape.tag in WITH_MASK:
            group = shape.get("group_id", "0")
            key = f"alone {position}" if group in ("", "0") else group
            objects.setdefault((key, shape.get("label", "")), []).append(shape)
    return list(objects.values())


def _union(rles: Sequence[RLE | None]) -> RLE | None:
    present = [rle for rle in rles if rle is not None]
    if len(present) < 2:
        return next(iter(present), None)
    covered = np.any(masks.decode(present), axis=0, keepdims=True)
    return masks.encode(covered)[0]


def _stored_name(entry: ImageEntry, name: str) -> str:
    """Where the image is: in images/, of a project in a folder of its subset there."""
    task, element = entry
    folder = PurePosixPath(task.folder)
    subset = element.get("subset", "")
    places = [folder / "images" / name, folder / name]
    if subset:
        places.insert(0, folder / "images" / clean_name(subset, task.where) / name)
    existing = [path for place in places if (path := task.files.find(str(place)))]
    return existing[0] if existing else str(places[0])
