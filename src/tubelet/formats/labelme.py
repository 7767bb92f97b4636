"""Read and write labelme: a JSON file beside each image, with polygons.

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
from tubelet.core.atomic import new_folder
from tubelet.core.errors import FormatError, InputError
from tubelet.core.text import to_json
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.documents import decode_json_as
from tubelet.formats.files import Files, FormatWarning, StoredFrames, check_size, clean_name, open_files
from tubelet.formats.lazy import LazyVideos
from tubelet.formats.outlines import outline
from tubelet.formats.storing import Omissions, folder_names, store_frames
from tubelet.video.reader import natural_order

VERSION = "5.0.0"  # of the form that is written


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


def write(out: str | Path, videos: VideoSet, *, frames: bool = True) -> Omissions:
    """Write a folder for each video, atomically: images, and a JSON file beside each.

    Args:
        out: The new folder.
        videos: The set.
        frames: Whether to write the images too.

    Returns:
        What labelme cannot hold, with counts: times, scores, crowds, holes in masks.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import labelme
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[torch.zeros(3, 4, 6, dtype=torch.uint8)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = labelme.write(Path(folder, "set"), VideoSet(videos=[video], classes=("dog",)))
        ...     sorted(path.name for path in Path(folder, "set", "dog").iterdir())
        ['00000.json', '00000.png']
    """
    omissions = Omissions()
    with new_folder(out) as root:
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            omissions.note_times(video)
            omissions.note_scores(video.tracks or ())
            omissions.note("crowds (they become objects)", sum(track.ignore for track in video.tracks or ()))
            folder = root / name
            folder.mkdir()
            images = store_frames(video, folder) if frames else [f"{t:05d}.png" for t in range(len(video))]
            for t, image in enumerate(images):
                content: dict[str, object] = {
                    "version": VERSION,
                    "flags": {},
                    "shapes": _shapes(video, t, videos.classes, omissions),
                    "imagePath": image,
                    "imageData": None,
                    "imageHeight": video.size[0],
                    "imageWidth": video.size[1],
                }
                path = (folder / image).with_suffix(".json")
                path.write_text(to_json(content, indent=1) + "\n", encoding="utf-8")
    return omissions


def _shapes(video: Video, t: int, classes: tuple[str, ...], omissions: Omissions) -> list[dict[str, object]]:
    """The polygons of a frame; those of one object share its id as their group."""
    shapes: list[dict[str, object]] = []
    for track in video.tracks or ():
        rle = track.rles[t]
        if rle is None:
            continue
        outlined = outline(rle)
        omissions.note("holes in masks", outlined.holes)
        for part in outlined.parts:
            shape = {"label": classes[track.label], "points": part.tolist(), "group_id": track.id}
            shapes.append({**shape, "shape_type": "polygon", "flags": {}})
    return shapes


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
