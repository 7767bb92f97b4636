"""Read Pascal VOC's instance segmentation: images, a map of classes and a map of objects for each.

    JPEGImages/2007_000032.jpg
    SegmentationClass/2007_000032.png     the colour is the class: VOC's palette, or that of labelmap.txt
    SegmentationObject/2007_000032.png    the colour is the object: VOC's palette, from 1
    labelmap.txt                          as CVAT and Datumaro write it; a line per class: name:red,green,blue::

Each image with both maps is a video of one frame. An object's class is that of most of its pixels. Void, which VOC
draws around objects (index 255), is background here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.files import decode_text
from tubelet.core.untrusted.images import check_header
from tubelet.core.untrusted.images import decode as decode_image
from tubelet.formats.classes import VOC
from tubelet.formats.files import Files, StoredFrames, is_image, open_files
from tubelet.formats.label_maps import PALETTE, decode_map
from tubelet.formats.lazy import LazyVideos

IMAGES, CLASSES, OBJECTS = "JPEGImages", "SegmentationClass", "SegmentationObject"
VOID = 255
BACKGROUND = "background"

Colour = tuple[int, int, int]


class _Entry(NamedTuple):
    id: str
    image: str
    classes: str  # path of the map of classes
    objects: str  # path of the map of objects


class _Palette(NamedTuple):
    """Which class a colour of the class maps is; background and void are -1."""

    labels: dict[Colour, int]
    names: tuple[str, ...]


def read(root: str | Path) -> VideoSet:
    """Read a folder or archive, such as VOC2012 or VOCdevkit; maps are read when a video is used.

    Raises InputError if there is no image with both maps, FormatError for a colour that is no class.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tubelet.formats import voc
        >>> from tubelet.formats.label_maps import encode_map
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
        ...         Path(folder, name).mkdir()
        ...     Image.new("RGB", (3, 1)).save(Path(folder, "JPEGImages", "a.jpg"))
        ...     _ = Path(folder, "SegmentationClass", "a.png").write_bytes(encode_map(np.array([[12, 12, 255]])))
        ...     _ = Path(folder, "SegmentationObject", "a.png").write_bytes(encode_map(np.array([[1, 1, 255]])))
        ...     videos = voc.read(folder)
        ...     videos.videos[0].tracks, videos.classes[11]
        ((Track(id=1, label=11, score=1, frames=1 of 1),), 'dog')
    """
    files = open_files(root)
    entries = _entries(files)
    if not entries:
        raise InputError(f"{files}: expected images in {IMAGES} with maps in {CLASSES} and {OBJECTS}")

    palette = _palette(files)
    return VideoSet(videos=_Images(files, entries, palette), classes=palette.names)


def _entries(files: Files) -> list[_Entry]:
    """The images with both maps; those of several years have the year before their names."""
    by_path: dict[tuple[str, str, str], str] = {}  # (folder of the set, kind, stem) -> path
    for name in files.names:
        path = PurePosixPath(name)
        kinds = [kind for kind in (IMAGES, CLASSES, OBJECTS) if kind in path.parts[:-1]]
        if kinds and is_image(name):
            position = path.parts.index(kinds[0])
            inner = PurePosixPath(*path.parts[position + 1 :]).with_suffix("")
            by_path["/".join(path.parts[:position]), kinds[0], str(inner)] = name

    roots = {root for root, kind, _ in by_path if kind == OBJECTS}
    entries = []
    for (root, kind, stem), objects in sorted(by_path.items()):
        image = by_path.get((root, IMAGES, stem))
        classes = by_path.get((root, CLASSES, stem))
        if kind == OBJECTS and image is not None and classes is not None:
            entries.append(_Entry(f"{root}/{stem}" if len(roots) > 1 else stem, image, classes, objects))
    return entries


def _palette(files: Files) -> _Palette:
    colours = _class_colours(files)
    names = tuple(dict.fromkeys(name for name in colours.values() if name.lower() != BACKGROUND))
    nothing = [_as_colour(PALETTE[index]) for index in (0, VOID)]
    labels = {colour: names.index(name) if name in names else -1 for colour, name in colours.items()}
    return _Palette(dict.fromkeys(nothing, -1) | labels, names)


def _class_colours(files: Files) -> dict[Colour, str]:
    """The class of each colour: those of labelmap.txt, or VOC's."""
    name = next((name for name in files.names if PurePosixPath(name).name == "labelmap.txt"), None)
    if name is None:
        return {_as_colour(PALETTE[number]): label for number, label in enumerate(VOC, start=1)}

    where = files.where(name)
    lines = decode_text(files.read(name), where).splitlines()
    entries = [_label_of(line, where) for line in lines if line.strip() and not line.startswith("#")]
    return {colour: label for label, colour in entries}


def _label_of(line: str, where: str) -> tuple[str, Colour]:
    """The name and colour of a line such as dog:64,0,128::"""
    label, _, rest = line.partition(":")
    numbers = rest.partition(":")[0].split(",")
    if len(numbers) != 3 or not all(number.strip().isascii() and number.strip().isdigit() for number in numbers):
        raise FormatError(f"{where}: expected lines such as dog:64,0,128::, got {line!r}")
    red, green, blue = (int(number) for number in numbers)
    return label.strip(), (red, green, blue)


def _as_colour(values: Sequence[int] | np.ndarray) -> Colour:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


class _Images(LazyVideos[_Entry]):
    cache_size = 1024

    def __init__(self, files: Files, entries: Sequence[_Entry], palette: _Palette) -> None:
        super().__init__(entries)
        self.files = files
        self.palette = palette

    def make(self, entry: _Entry) -> Video:
        size = check_header(self.files.read(entry.image), self.files.where(entry.image)).size
        labels = self._labels(entry.classes, size)
        objects = decode_map(self.files.read(entry.objects), size, self.files.where(entry.objects))
        objects[objects == VOID] = 0

        frames = StoredFrames(self.files, (entry.image,), size)
        tracks = tuple(_tracks(objects, labels, self.files.where(entry.objects)))
        return Video(id=entry.id, size=size, frames=frames, tracks=tracks)

    def _labels(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """The label of each pixel, int64 [H, W]; -1 where there is none."""
        where = self.files.where(name)
        colours = decode_image(self.files.read(name), where, rgb=True).values
        if colours.shape != (*size, 3):
            raise FormatError(f"{where}: expected a map of colours of {size[1]}x{size[0]}, got {list(colours.shape)}")

        codes, inverse = np.unique(_codes(colours.reshape(-1, 3)), return_inverse=True)
        labels = {int(_codes(np.array([colour]))[0]): label for colour, label in self.palette.labels.items()}
        unknown = [int(code) for code in codes if int(code) not in labels]
        if unknown:
            raise FormatError(f"{where}: the colour #{unknown[0]:06x} is that of no class")
        return np.array([labels[int(code)] for code in codes])[inverse].reshape(size)


def _codes(colours: np.ndarray) -> np.ndarray:
    """One number per colour, int64 [N] of [N, 3]."""
    codes: np.ndarray = colours.astype(np.int64) @ np.array([65536, 256, 1])
    return codes


def _tracks(objects: np.ndarray, labels: np.ndarray, where: str) -> Iterator[Track]:
    for number in np.unique(objects[objects > 0]).tolist():
        mask = objects == number
        inside = labels[mask & (labels >= 0)]
        if not len(inside):
            raise FormatError(f"{where}: object {number} covers no pixel of a class")
        label = int(np.bincount(inside).argmax())
        yield Track(id=number, label=label, score=1.0, rles=tuple(masks.encode(mask[None])))
