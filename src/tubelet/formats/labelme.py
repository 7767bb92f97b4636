"""Read labelme: a JSON file beside each image, with polygons.

A folder in which a shape has a `group_id` is one video: the group is the identity, its images are the frames in natural
order, and several polygons of a group in one image are one mask. Without any, each image is a video of one frame.
Shapes other than polygons have no mask; they are left out and counted.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import msgspec

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.documents import decode_json_as
from tubelet.formats.files import Files, FormatWarning, StoredFrames, check_size, clean_name, open_files
from tubelet.formats.lazy import LazyVideos
from tubelet.video.reader import natural_order


class Shape(msgspec.Struct):
    """One shape of an image.

    Example:
        >>> from tubelet.formats.labelme import Shape
        >>> Shape(label="dog", points=[[0, 0], [5, 0], [5, 3]]).shape_type
        'polygon'
    """

    label: str
    points: list[list[float]]
    group_id: int | None = None
    shape_type: str = "polygon"


class Labelled(msgspec.Struct, rename="camel"):
    """The JSON file of one image.

    Example:
        >>> from tubelet.formats.labelme import Labelled
        >>> Labelled(shapes=[], image_path="a.jpg", image_height=4, image_width=6).image_path
        'a.jpg'
    """

    shapes: list[Shape]
    image_path: str
    image_height: int
    image_width: int


class _Page(msgspec.Struct):
    """A JSON file, its content, and its image."""

    name: str
    content: Labelled
    image: str


def read(path: str | Path) -> VideoSet:
    """Read a folder or archive of images and JSON files, or the folder of one such file.

    Raises InputError if there is none, FormatError if one is not of this form.

    Example:
        >>> import msgspec, tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats import labelme
        >>> shape = {"label": "dog", "points": [[0, 0], [6, 0], [6, 4]], "group_id": 3, "shape_type": "polygon"}
        >>> page = {"shapes": [shape], "imagePath": "a.jpg", "imageHeight": 4, "imageWidth": 6}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.json").write_bytes(msgspec.json.encode(page))
        ...     videos = labelme.read(folder)
        ...     videos.classes, videos.videos[0].tracks[0].id
        (('dog',), 3)
    """
    path = Path(path)
    files = open_files(path.parent if path.suffix.lower() == ".json" else path)
    names = sorted((name for name in files.names if name.endswith(".json")), key=lambda name: natural_order(Path(name)))
    pages = [_page(files, name) for name in names]
    if not pages:
        raise InputError(f"{files}: expected a JSON file beside each image")

    others = [shape.shape_type for page in pages for shape in page.content.shapes if shape.shape_type != "polygon"]
    if others:
        what = f"{len(others)} shapes are no polygons ({', '.join(sorted(set(others)))}) and are left out"
        warnings.warn(f"{files}: {what}", FormatWarning, stacklevel=2)

    labels = {shape.label for page in pages for shape in _polygons(page)}
    classes = tuple(sorted(labels))
    return VideoSet(videos=_Videos(files, _in_videos(pages), classes), classes=classes)


def _page(files: Files, name: str) -> _Page:
    where = files.where(name)
    content: Labelled = decode_json_as(Labelled, files.read(name), where, complaint="expected labelme's form")
    image = clean_name(PurePosixPath(content.image_path.replace("\\", "/")).name, where)
    return _Page(name=name, content=content, image=str(PurePosixPath(name).parent / image))


def _polygons(page: _Page) -> list[Shape]:
    return [shape for shape in page.content.shapes if shape.shape_type == "polygon"]


def _in_videos(pages: Sequence[_Page]) -> list[list[_Page]]:
    """Pages of one video: a folder with groups together, others alone."""
    folders: dict[str, list[_Page]] = {}
    for page in pages:
        folders.setdefault(str(PurePosixPath(page.name).parent), []).append(page)

    videos: list[list[_Page]] = []
    for members in folders.values():
        videos += [members] if _has_groups(members) else [[page] for page in members]
    return videos


def _has_groups(pages: Sequence[_Page]) -> bool:
    return any(shape.group_id is not None for page in pages for shape in page.content.shapes)


class _Videos(LazyVideos[list[_Page]]):
    cache_size = 1024

    def __init__(self, files: Files, entries: Sequence[list[_Page]], classes: tuple[str, ...]) -> None:
        super().__init__(entries)
        self.files = files
        self.classes = classes

    def make(self, entry: list[_Page]) -> Video:
        first = entry[0].content
        size = check_size(first.image_height, first.image_width, self.files.where(entry[0].name))
        for page in entry:
            if (page.content.image_height, page.content.image_width) != size:
                where = self.files.where(page.name)
                raise FormatError(f"{where}: another size than {entry[0].name} of the same video")

        frames = StoredFrames(self.files, tuple(page.image for page in entry), size)
        return Video(id=self._name(entry), size=size, frames=frames, tracks=self._tracks(entry, size))

    def _name(self, pages: list[_Page]) -> str:
        """The folder of a video with groups, the file of an image without."""
        path = PurePosixPath(pages[0].name)
        if not _has_groups(pages):
            return str(path.with_suffix(""))
        return self.files.path.name if path.parent == PurePosixPath(".") else str(path.parent)

    def _tracks(self, pages: list[_Page], size: tuple[int, int]) -> tuple[Track, ...]:
        groups = {shape.group_id for page in pages for shape in _polygons(page) if shape.group_id is not None}
        next_id = max(groups, default=0) + 1
        tracks: dict[tuple[int, str], list[masks.RLE | None]] = {}
        for t, page in enumerate(pages):
            polygons: dict[tuple[int, str], list[list[float]]] = {}
            for shape in _polygons(page):
                id = shape.group_id
                if id is None:  # an object of this image alone
                    id, next_id = next_id, next_id + 1
                flat = [number for point in shape.points for number in point]
                polygons.setdefault((id, shape.label), []).append(flat)
            for key, parts in polygons.items():
                rles = tracks.setdefault(key, [None] * len(pages))
                rles[t] = masks.from_json(parts, size, f"{self.files.where(page.name)}: {key[1]} {key[0]}")

        _check_ids(tracks, str(self.files))
        return tuple(
            Track(id=id, label=self.classes.index(label), score=1.0, rles=tuple(rles))
            for (id, label), rles in sorted(tracks.items())
        )


def _check_ids(tracks: dict[tuple[int, str], list[masks.RLE | None]], where: str) -> None:
    seen: dict[int, str] = {}
    for id, label in tracks:
        if seen.setdefault(id, label) != label:
            raise FormatError(f"{where}: group {id} is {seen[id]!r} and {label!r}; an identity has one class")
