"""Read and write YOLO's segmentation layout: images, text files of polygons, and a YAML file with the class names.

    data.yaml                       names: [dog, cat], or names: with a line "0: dog" for each
    images/train/a.jpg              or train/images/a.jpg
    labels/train/a.txt              or train/labels/a.txt; a line per object: class x1 y1 x2 y2 x3 y3 ...

Coordinates are shares of the image's width and height. There are no identities: each image is a video of one frame. Of
several splits, `train` is read, as data.yaml names it; the path of another one's folder (images/val, val or val/images)
reads that one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from tubelet.core import masks
from tubelet.core.atomic import new_folder
from tubelet.core.errors import FormatError, InputError
from tubelet.core.text import to_json
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.files import decode_text
from tubelet.core.untrusted.images import check_header
from tubelet.formats.files import Files, StoredFrames, is_image, open_inner
from tubelet.formats.lazy import LazyVideos
from tubelet.formats.outlines import outline
from tubelet.formats.storing import Omissions, folder_names, store_frames
from tubelet.formats.yolo_settings import SPLITS, YAML, class_names, settings_text, training_images

IMAGES, LABELS = "images", "labels"


class _Place(NamedTuple):
    root: Path
    split: str = ""  # the folder of images that is meant, with a slash; empty: what is for training
    settings: str | None = None  # name of the YAML file, if it was given


class _Entry(NamedTuple):
    image: str
    labels: str | None  # the text file; None: no object


def read(root: str | Path) -> VideoSet:
    """Read a folder or archive, the folder of a split, or a data.yaml; polygons are read when a video is used.

    Raises InputError if there are no images or class names, FormatError for lines that are no polygons.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tubelet.formats import yolo
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("images", "labels"):
        ...         Path(folder, name).mkdir()
        ...     Image.new("RGB", (6, 4)).save(Path(folder, "images", "a.png"))
        ...     _ = Path(folder, "labels", "a.txt").write_text("0 0 0 1 0 1 1")
        ...     _ = Path(folder, "data.yaml").write_text("names: [dog, cat]")
        ...     videos = yolo.read(folder)
        ...     videos.classes, videos.videos[0]
        (('dog', 'cat'), Video(id='a', size=(4, 6), frames=1, fps=25, tracks=1))
    """
    place = _place_of(Path(root))
    files = open_inner(place.root, lambda name: name.endswith(YAML))
    images = [name for name in files.names if is_image(name) and IMAGES in PurePosixPath(name).parts[:-1]]
    images = [name for name in images if name.startswith(place.split)]
    if not images:
        raise InputError(f"{files}: expected images in a folder called images")

    text = settings_text(place.root, files, place.settings)
    classes = class_names(text, str(files))
    chosen = images if place.split else training_images(images, files, text)
    entries = [_Entry(name, _labels_of(files, name)) for name in chosen]
    if not any(entry.labels for entry in entries):
        raise InputError(f"{files}: expected text files of labels in a folder called labels beside images")
    return VideoSet(videos=_Images(files, entries, classes), classes=classes)


def _place_of(path: Path) -> _Place:
    """The set that has the folder of a split, or a YAML file; else the folder or archive itself."""
    if path.suffix.lower() in YAML:
        return _Place(path.parent, settings=path.name)
    if not is_images_of_split(path):
        return _Place(path)

    folder = path.absolute()
    root = folder.parent if folder.name == IMAGES else folder.parent.parent
    return _Place(root, split=f"{folder.relative_to(root).as_posix()}/")


def is_images_of_split(path: Path) -> bool:
    """Whether a path is that of a folder of images: images, or one in it, with labels beside it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.yolo import is_images_of_split
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("images/val", "labels/val"):
        ...         Path(folder, name).mkdir(parents=True)
        ...     is_images_of_split(Path(folder, "images", "val")), is_images_of_split(Path(folder))
        (True, False)
    """
    folder = path.absolute()
    base = next((parent for parent in (folder, folder.parent) if parent.name == IMAGES), None)
    return base is not None and folder.is_dir() and (base.parent / LABELS).is_dir()


def write(out: str | Path, videos: VideoSet, *, frames: bool = True) -> Omissions:
    """Write data.yaml, images/train/<video>/00000.* and labels/train/<video>/00000.txt, atomically.

    A mask of several parts is one polygon, whose parts are joined by lines without width.

    Args:
        out: The new folder.
        videos: The set.
        frames: Whether to write the images too.

    Returns:
        What YOLO cannot hold, with counts: identities, times, scores, crowds (left out), holes in masks.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import yolo
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[torch.zeros(3, 4, 6, dtype=torch.uint8)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     losses = yolo.write(Path(folder, "set"), VideoSet(videos=[video], classes=("dog",)))
        ...     sorted(path.name for path in Path(folder, "set").rglob("*.*"))
        ['00000.png', '00000.txt', 'data.yaml']
    """
    omissions = Omissions()
    with new_folder(out) as root:
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            omissions.note_times(video)
            omissions.note_scores(video.tracks or ())
            omissions.note("identities of objects", len(video.tracks or ()))
            omissions.note("crowds", sum(track.ignore for track in video.tracks or ()))
            if frames:
                store_frames(video, root / IMAGES / "train" / name)

            folder = root / LABELS / "train" / name
            folder.mkdir(parents=True)
            for t in range(len(video)):
                lines = _lines(video, t, omissions)
                (folder / f"{t:05d}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (root / "data.yaml").write_text(_yaml(videos.classes), encoding="utf-8")
    return omissions


def _yaml(classes: Sequence[str]) -> str:
    """The YAML file; a JSON string is one of YAML, too."""
    names = "".join(f"  {n}: {to_json(name)}\n" for n, name in enumerate(classes))
    return f"path: .\ntrain: images/train\nval: images/train\nnames:\n{names}"


def _lines(video: Video, t: int, omissions: Omissions) -> list[str]:
    height, width = video.size
    lines = []
    for track in video.tracks or ():
        rle = track.rles[t]
        if rle is None or track.ignore:
            continue
        outlined = outline(rle)
        omissions.note("holes in masks", outlined.holes)
        if outlined.parts:
            # each part is closed, and the way back to the first is the way that led there
            closed = [np.vstack([part, part[:1]]) for part in outlined.parts]
            back = [part[:1] for part in outlined.parts[-2::-1]]
            shares = np.vstack([*closed, *back]) / (width, height)
            numbers = " ".join(f"{share:.6g}" for share in shares.ravel())
            lines.append(f"{track.label} {numbers}")
    return lines


def _labels_of(files: Files, image: str) -> str | None:
    """The text file of an image: `labels` in place of the last `images` of its path."""
    parts = list(PurePosixPath(image).with_suffix(".txt").parts)
    last = len(parts) - 1 - parts[::-1].index(IMAGES)
    name = "/".join([*parts[:last], LABELS, *parts[last + 1 :]])
    return files.find(name)


def _name(image: str) -> str:
    """What a video is called: the path of its image below `images` and the split."""
    parts = PurePosixPath(image).with_suffix("").parts
    inner = parts[len(parts) - parts[::-1].index(IMAGES) :]
    return "/".join(inner[1:] if len(inner) > 1 and inner[0] in SPLITS else inner)


class _Images(LazyVideos[_Entry]):
    cache_size = 1024

    def __init__(self, files: Files, entries: Sequence[_Entry], classes: tuple[str, ...]) -> None:
        super().__init__(entries)
        self.files = files
        self.classes = classes

    def make(self, entry: _Entry) -> Video:
        size = check_header(self.files.read(entry.image), self.files.where(entry.image)).size
        frames = StoredFrames(self.files, (entry.image,), size)
        return Video(id=_name(entry.image), size=size, frames=frames, tracks=tuple(self._tracks(entry, size)))

    def _tracks(self, entry: _Entry, size: tuple[int, int]) -> list[Track]:
        if entry.labels is None:
            return []
        text = decode_text(self.files.read(entry.labels), self.files.where(entry.labels))
        tracks: list[Track] = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                where = f"{self.files.where(entry.labels)}, line {number}"
                tracks.append(self._track(line, len(tracks) + 1, size, where))
        return tracks

    def _track(self, line: str, id: int, size: tuple[int, int], where: str) -> Track:
        try:
            numbers = [float(word) for word in line.split()]
        except ValueError:
            numbers = []
        if len(numbers) == 5:
            raise FormatError(f"{where}: a box, not a polygon; masks need labels for segmentation")

        is_polygon = len(numbers) >= 7 and len(numbers) % 2 == 1 and all(map(math.isfinite, numbers))
        if not is_polygon or not numbers[0].is_integer():
            raise FormatError(f"{where}: expected a class and three points or more, class x1 y1 x2 y2 x3 y3 ...")
        label = int(numbers[0])
        if not 0 <= label < len(self.classes):
            raise FormatError(f"{where}: no class {label}; data.yaml names {len(self.classes)}")

        height, width = size
        scaled = [share * (height if n % 2 else width) for n, share in enumerate(numbers[1:])]
        return Track(id=id, label=label, score=1.0, rles=(masks.from_json([scaled], size, where),))
