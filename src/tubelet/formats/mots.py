"""Read and write MOTS and KITTI-MOTS: label maps as 16-bit PNG, or run-length codes as text.

An object's number is class id x 1000 + instance; 10000 is a region to ignore. A frame's number is its file name.

    annotations    instances/<sequence>/*.png, instances_txt/<sequence>.txt, or <sequence>/gt/gt.txt (MOTS challenge)
    frames         image_02/<sequence> (at the root or in training/), <sequence>/img1, or in the folder `images`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from tubelet.core import masks
from tubelet.core.atomic import new_folder
from tubelet.core.errors import FormatError, InputError
from tubelet.core.masks import RLE
from tubelet.core.text import plain
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.files import decode_text
from tubelet.core.untrusted.images import check_header
from tubelet.formats.classes import MOTS
from tubelet.formats.files import Files, StoredFrames, check_size, is_image, open_files, open_inner
from tubelet.formats.label_maps import decode_map, encode_map, separate
from tubelet.formats.lazy import LazyVideos
from tubelet.formats.storing import Omissions, folder_names, label_maps, store_frames

IGNORED = 10_000
PER_CLASS = 1_000
_CLASSES = "classes.txt"  # an addition of tubelet: the format itself has class numbers only
_MAX_FRAME = 1_000_000


class _Sequence(NamedTuple):
    name: str
    frames: Mapping[int, str]  # frame number -> path of the image
    text: str | None  # path of the text file
    maps: Mapping[int, str]  # frame number -> path of the label map


class _Annotations(NamedTuple):
    """The objects of one sequence."""

    masks: dict[int, dict[int, RLE]]  # object -> frame number -> mask
    classes: dict[int, int]  # object -> class id
    size: tuple[int, int] | None  # height, width


def read(root: str | Path, images: str | Path | None = None, *, classes: Sequence[str] | None = None) -> VideoSet:
    """Read the sequences of a folder or zip archive; annotations are read when a video is used.

    Args:
        root: The folder or archive.
        images: Folder or archive of the frames, if they are not in `root`.
        classes: Names of the classes, the first for class id 1; by default those of classes.txt at
            the root, one name per line, else car and pedestrian.

    Raises:
        InputError: if there are no annotations.
        FormatError: names file and line or frame, if an annotation is invalid.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core import masks
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import mots
        >>> rle = masks.encode(np.ones((1, 4, 6), bool))[0]
        >>> track = tubelet.Track(id=2000, label=1, score=1.0, rles=(rle,))
        >>> frame = torch.zeros(3, 4, 6, dtype=torch.uint8)
        >>> video = tubelet.Video(id="street", size=(4, 6), frames=[frame], tracks=(track,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = mots.write(Path(folder, "set"), VideoSet(videos=[video], classes=("car", "pedestrian")))
        ...     mots.read(Path(folder, "set")).videos[0].tracks[0].id
        2000
    """
    files = open_inner(root, lambda name: name == _CLASSES)
    image_files = files if images is None else open_files(images)
    texts = _texts(files)
    maps = _maps(files)
    names = sorted({*texts, *maps})
    if not names:
        raise InputError(f"{files}: expected MOTS's layout: instances, instances_txt or <sequence>/gt/gt.txt")

    classes = tuple(classes or _stated_classes(files) or MOTS)
    frames = _frames(image_files, names)
    entries = [_Sequence(name, frames.get(name, {}), texts.get(name), maps.get(name, {})) for name in names]
    return VideoSet(videos=_Sequences(files, image_files, entries, len(classes)), classes=classes)


class _Sequences(LazyVideos[_Sequence]):
    cache_size = 1024

    def __init__(self, files: Files, image_files: Files, entries: Sequence[_Sequence], num_classes: int) -> None:
        super().__init__(entries)
        self.files = files
        self.image_files = image_files
        self.num_classes = num_classes

    def make(self, entry: _Sequence) -> Video:
        annotations = self._from_maps(entry) if entry.text is None else self._from_text(entry, entry.text)
        size = annotations.size
        if size is None:
            raise FormatError(f"{self.files}: sequence {entry.name}: neither objects nor frames tell its size")

        numbers = _frame_numbers(entry, annotations.masks)
        tracks = []
        for track_id, by_frame in annotations.masks.items():
            rles = [by_frame.get(number) for number in numbers]
            tracks.append(self._track(track_id, annotations.classes[track_id], rles, entry.name))

        names = [entry.frames.get(number, f"{entry.name}/{number:06d}.png") for number in numbers]
        frames = StoredFrames(self.image_files, names, size)
        return Video(id=entry.name, size=size, frames=frames, tracks=tuple(tracks))

    def _track(self, track_id: int, class_id: int, rles: Sequence[RLE | None], sequence: str) -> Track:
        if IGNORED in (track_id, class_id * PER_CLASS):
            return Track(id=track_id, label=0, score=1.0, rles=tuple(rles), ignore=True)

        if not 1 <= class_id <= self.num_classes:
            known = f"expected 1 to {self.num_classes}"
            raise FormatError(f"{self.files}: sequence {sequence}: object {track_id} is of class {class_id}, {known}")
        return Track(id=track_id, label=class_id - 1, score=1.0, rles=tuple(rles))

    def _size(self, entry: _Sequence) -> tuple[int, int] | None:
        if not entry.frames:
            return None
        name = entry.frames[min(entry.frames)]
        return check_header(self.image_files.read(name), self.image_files.where(name)).size

    def _from_maps(self, entry: _Sequence) -> _Annotations:
        numbers = sorted(entry.maps)
        size = self._size(entry) or self._map(entry.maps[numbers[0]], None).shape
        by_object = separate(self._map(entry.maps[number], size) for number in numbers)

        present = {}
        for track_id, rles in by_object.items():
            present[track_id] = {n: rle for n, rle in zip(numbers, rles, strict=True) if rle is not None}
        classes = {track_id: track_id // PER_CLASS for track_id in present}
        return _Annotations(present, classes, size)

    def _map(self, name: str, size: tuple[int, int] | None) -> np.ndarray:
        return decode_map(self.files.read(name), size, self.files.where(name))

    def _from_text(self, entry: _Sequence, name: str) -> _Annotations:
        by_object: dict[int, dict[int, RLE]] = {}
        classes: dict[int, int] = {}
        size = self._size(entry)
        text = decode_text(self.files.read(name), self.files.where(name))
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue

            where = f"{self.files.where(name)}: line {number}"
            frame, track_id, class_id, rle = _parse(line, size, where)
            size = rle.size

            by_frame = by_object.setdefault(track_id, {})
            if frame in by_frame:
                raise FormatError(f"{where}: object {track_id} is in frame {frame} already")
            first_class = classes.setdefault(track_id, class_id)
            if first_class != class_id:
                raise FormatError(f"{where}: object {track_id} is of class {class_id}, before it was of {first_class}")
            by_frame[frame] = rle
        return _Annotations(by_object, classes, size)


def _parse(line: str, size: tuple[int, int] | None, where: str) -> tuple[int, int, int, RLE]:
    """Frame, object, class and mask of a line of text."""
    words = line.split(" ")
    has_numbers = all(word.isdigit() and len(word) < 12 for word in words[:5])
    if len(words) != 6 or not line.isascii() or not has_numbers:
        raise FormatError(f"{where}: expected 'frame id class height width rle', got {line[:60]!r}")

    frame, track_id, class_id, height, width = (int(word) for word in words[:5])
    if frame > _MAX_FRAME:
        raise FormatError(f"{where}: frame {frame} is more than is supported")

    mask_size = check_size(height, width, where)
    if size is not None and mask_size != size:
        hint = ", width and height are swapped" if mask_size == size[::-1] else ""
        raise FormatError(f"{where}: expected a mask of {size[1]}x{size[0]}, got {width}x{height}{hint}")

    counts = words[5].encode("ascii")
    masks.check_counts(counts, mask_size, where)
    return frame, track_id, class_id, RLE(mask_size, counts)


def _frame_numbers(entry: _Sequence, by_object: Mapping[int, Mapping[int, RLE]]) -> list[int]:
    """Numbers of the video's frames: those with an image; without images, all up to the last annotated one.

    Without images, a sequence starts at frame 0, or at 1 if frame 0 has no annotation (the MOTS challenge).
    """
    with_objects = {number for by_frame in by_object.values() for number in by_frame}
    if entry.frames:
        without_image = with_objects - set(entry.frames)
        if without_image:
            raise FormatError(f"sequence {entry.name}: objects in frame {min(without_image)}, which has no image")
        return sorted(entry.frames)

    annotated = set(entry.maps) | with_objects
    return list(range(min(1, *annotated), max(annotated) + 1)) if annotated else []


def _stated_classes(files: Files) -> list[str]:
    if not files.find(_CLASSES):
        return []
    lines = decode_text(files.read(_CLASSES), files.where(_CLASSES)).split("\n")
    return [line for line in lines if line]


def _texts(files: Files) -> dict[str, str]:
    """Sequence -> path of its text file."""
    texts = {}
    for name in files.names:
        path = PurePosixPath(name)
        if path.parent.name == "instances_txt" and path.suffix == ".txt":
            texts[path.stem] = name
        elif path.parts[-2:] == ("gt", "gt.txt") and len(path.parts) >= 3:
            texts[path.parts[-3]] = name
    return texts


def _maps(files: Files) -> dict[str, dict[int, str]]:
    return _numbered(files, "instances")


def _frames(files: Files, names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Sequence -> frame number -> path of the image, from the first layout that has any."""
    for folder in ("image_02", "images", None):
        images = _numbered(files, folder)
        if images:
            return images

    images = {}
    for name in files.names:
        path = PurePosixPath(name)
        sequence = path.parent.parent.name
        is_frame = path.parent.name == "img1" and path.stem.isdigit() and is_image(name)
        if is_frame and sequence in names:
            images.setdefault(sequence, {})[int(path.stem)] = name
    return images


def _numbered(files: Files, folder: str | None) -> dict[str, dict[int, str]]:
    """Images <folder>/<sequence>/<number>.png at any depth; without a folder, <sequence>/<number>.png at the root."""
    images: dict[str, dict[int, str]] = {}
    for name in files.names:
        path = PurePosixPath(name)
        parts = path.parts
        matches = len(parts) == 2 if folder is None else len(parts) >= 3 and parts[-3] == folder
        if matches and path.stem.isdigit() and is_image(name):
            images.setdefault(parts[-2], {})[int(path.stem)] = name
    return images


def write(out: str | Path, videos: VideoSet, *, text: bool = True, frames: bool = True) -> Omissions:
    """Write a new folder, atomically: annotations, and the frames as image_02/<sequence>/000000.*.

    Args:
        out: The new folder.
        videos: The set; where masks overlap, the earlier object keeps the pixel.
        text: Write instances_txt/<sequence>.txt; otherwise instances/<sequence>/000000.png.
        frames: Whether to write the images too.

    Returns:
        What MOTS cannot store, with counts: times, scores, overlaps.

    Raises:
        InputError: if a video has more than 1000 objects of one class, or there are more than 9
            classes.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core import masks
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import mots
        >>> rle = masks.encode(np.ones((1, 4, 6), bool))[0]
        >>> track = tubelet.Track(id=2000, label=1, score=1.0, rles=(rle,))
        >>> video = tubelet.Video(id="street", size=(4, 6), frames=[None], tracks=(track,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = Path(folder, "set")
        ...     _ = mots.write(out, VideoSet(videos=[video], classes=("car", "pedestrian")), frames=False)
        ...     (out / "instances_txt" / "street.txt").read_text()
        '0 2000 2 4 6 0h0\\n'
    """
    omissions = Omissions()
    with new_folder(out) as root:
        if videos.classes != MOTS:
            names = "".join(f"{plain(name)}\n" for name in videos.classes)
            (root / _CLASSES).write_text(names, encoding="utf-8")
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            omissions.note_times(video)
            numbers = _object_numbers(video, omissions)
            folder = root / ("instances_txt" if text else f"instances/{name}")
            folder.mkdir(parents=True, exist_ok=True)
            if frames:
                store_frames(video, root / "image_02" / name, digits=6)

            maps = enumerate(label_maps(video, numbers, omissions))
            if text:
                lines = [line for t, labels in maps for line in _lines(t, labels)]
                (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            else:
                for t, labels in maps:
                    (folder / f"{t:06d}.png").write_bytes(encode_map(labels, wide=True))
    return omissions


def _object_numbers(video: Video, omissions: Omissions) -> dict[int, int]:
    """Track id -> class x 1000 + instance; ids stay if all of them are such numbers already."""
    tracks = video.tracks or ()
    objects = [track for track in tracks if not track.ignore]
    omissions.note_scores(tracks)
    omissions.note("ignored regions of their own (they become one)", max(0, len(tracks) - len(objects) - 1))

    numbers = {track.id: IGNORED for track in tracks if track.ignore}
    if all(track.id // PER_CLASS == track.label + 1 for track in objects):
        numbers |= {track.id: track.id for track in objects}
    else:
        omissions.note("ids of objects (they are numbered anew)", len(objects))
        counts: Counter[int] = Counter()
        for track in objects:
            numbers[track.id] = (track.label + 1) * PER_CLASS + counts[track.label]
            counts[track.label] += 1
        if max(counts.values()) > PER_CLASS:
            raise InputError(f"video {video.id}: MOTS holds {PER_CLASS} objects of a class, not {max(counts.values())}")

    if any(track.label + 1 >= IGNORED // PER_CLASS for track in objects):
        raise InputError(f"video {video.id}: MOTS holds classes 1 to {IGNORED // PER_CLASS - 1}")
    return numbers


def _lines(t: int, labels: np.ndarray) -> list[str]:
    """The lines of one frame: frame, object, class, height, width, run-length code."""
    present = [int(number) for number in np.unique(labels) if number]
    rles = masks.encode(labels[None] == np.array(present)[:, None, None]) if present else []
    height, width = labels.shape
    return [
        f"{t} {number} {number // PER_CLASS} {height} {width} {rle.counts.decode('ascii')}"
        for number, rle in zip(present, rles, strict=True)
    ]
