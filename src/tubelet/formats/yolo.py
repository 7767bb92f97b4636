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
import re
import warnings
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
from tubelet.formats.files import Files, FormatWarning, StoredFrames, is_image, open_files
from tubelet.formats.lazy import LazyVideos
from tubelet.formats.outlines import outline
from tubelet.formats.storing import Omissions, folder_names, store_frames

IMAGES, LABELS = "images", "labels"
SPLITS = ("train", "val", "valid", "test")
YAML = (".yaml", ".yml")
LEVELS = 3  # how far above a split's folder the YAML file may be


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
    files = open_files(place.root)
    images = [name for name in files.names if is_image(name) and IMAGES in PurePosixPath(name).parts[:-1]]
    images = [name for name in images if name.startswith(place.split)]
    if not images:
        raise InputError(f"{files}: expected images in a folder called images")

    text = _yaml_text(place.root, files, place.settings)
    classes = class_names(text, str(files))
    chosen = images if place.split else _of_one_split(images, files, text)
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


def class_names(text: str, where: str) -> tuple[str, ...]:
    """The class names of a YAML file: `names` as a list or as numbered lines. Raises FormatError if there are none.

    Example:
        >>> from tubelet.formats.yolo import class_names
        >>> class_names("nc: 2\\nnames: ['dog', cat]", "data.yaml")
        ('dog', 'cat')
        >>> class_names("names:\\n  0: dog\\n  1: cat\\ntrain: images/train", "data.yaml")
        ('dog', 'cat')
    """
    is_list = re.search(r"^names\s*:[ \t]*(?:[\[{#].*)?$", text, re.MULTILINE)
    names = _values(text, "names") if is_list else []
    if not names or "" in names:
        raise FormatError(f"{where}: expected class names, as names: [dog, cat]")
    return tuple(names)


def _values(text: str, key: str) -> list[str]:
    """What a key of a YAML file has: one value, or those of a list or of numbered lines."""
    match = re.search(rf"^{key}\s*:[ \t]*(.*)$", text, re.MULTILINE)
    if match is None:
        return []

    inline = re.match(r"\[(.*?)\]|\{(.*?)\}", text[match.start(1) :], re.DOTALL)
    if inline is not None:
        values = [re.sub(r"^\s*\d+\s*:", "", value) for value in (inline[1] or inline[2] or "").split(",")]
    elif match[1] and not match[1].startswith("#"):
        values = [match[1]]
    else:
        block = re.match(r"(?:[ \t]*(?:-|\d+\s*:)[^\n]*\n|[ \t]*#[^\n]*\n|\s*\n)*", text[match.end() + 1 :] + "\n")
        values = re.findall(r"^[ \t]*(?:-|\d+\s*:)[ \t]*(.+?)[ \t]*$", block[0] if block else "", re.MULTILINE)
    return [re.sub(r"\s+#.*", "", value).strip().strip("'\"") for value in values]


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


def _of_one_split(images: Sequence[str], files: Files, text: str) -> list[str]:
    """The images of `train` if there are several splits: as the YAML file names them, else by their usual names."""
    splits = {split: _images_of(split, images, files, text) for split in SPLITS}
    if not splits["train"]:
        splits = {split: [name for name in images if split in PurePosixPath(name).parts[:-1]] for split in SPLITS}

    training = set(splits["train"])
    others = [split for split, names in splits.items() if set(names) - training]
    if not training:
        return list(images)
    if others:
        what = f"of its splits, train is read; {', '.join(sorted(others))} by the path of its folder"
        warnings.warn(f"{files}: {what}", FormatWarning, stacklevel=3)
    return splits["train"]


def _images_of(split: str, images: Sequence[str], files: Files, text: str) -> list[str]:
    """The images of a split in the YAML file, which has folders, or text files that list images."""
    paths = [_below(value) for value in _values(text, split)]
    folders = tuple(f"{path}/" for path in paths)
    lists = [path for path in paths if path.endswith(".txt") and path in files.names]
    lines = [line for path in lists for line in decode_text(files.read(path), files.where(path)).split("\n")]
    listed = {_below(line) for line in lines}
    return [name for name in images if name.startswith(folders) or name in listed]


def _below(path: str) -> str:
    """A path without ./ and ../ before it: Roboflow writes ../train/images, and means train/images."""
    return re.sub(r"^(?:\.{0,2}/)+", "", path.strip().replace("\\", "/")).rstrip("/")


def _yaml_text(root: Path, files: Files, settings: str | None) -> str:
    """The YAML file of this name; by default the one at the top, or above the folder of a split."""
    here = [name for name in files.names if "/" not in name and name.endswith(YAML)]
    if settings or here:
        name = settings or ("data.yaml" if "data.yaml" in here else here[0])
        return decode_text(files.read(name), files.where(name))

    for folder in list(root.absolute().parents)[:LEVELS]:
        path = folder / "data.yaml"
        if path.is_file():
            return decode_text(open_files(folder).read("data.yaml"), str(path))
    raise InputError(f"{files}: expected data.yaml with the class names, names: [dog, cat]")


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
