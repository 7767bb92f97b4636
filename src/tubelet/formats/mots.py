"""MOTS and KITTI-MOTS: label maps in 16-bit PNG, or run lengths in text.

An object's number is class id x 1000 + instance; 10000 is a region to ignore. Layouts read: instances/<sequence>/*.png,
instances_txt/<sequence>.txt, and <sequence>/gt/gt.txt of the MOTS challenge. Frames lie in image_02/<sequence> (beside,
or under training/), in <sequence>/img1, or where `images` says. A frame's number is that of its file name.
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
from tubelet.formats.files import Files, StoredFrames, check_size, is_image, open_files
from tubelet.formats.label_maps import decode_map, encode_map, separate
from tubelet.formats.lazy import LazyVideos
from tubelet.formats.storing import Omissions, folder_names, label_maps, store_frames

IGNORED = 10_000
PER_CLASS = 1_000
_CLASSES = "classes.txt"  # our own addition: the form itself has numbers alone
_LONGEST = 1_000_000  # frames; a number beyond is refused


class _Sequence(NamedTuple):
    name: str
    frames: Mapping[int, str]  # frame number -> image
    text: str | None
    maps: Mapping[int, str]  # frame number -> label map


class _Held(NamedTuple):
    """What the annotations of a sequence say."""

    columns: dict[int, dict[int, RLE]]  # object -> frame number -> mask
    classes: dict[int, int]  # object -> class id
    size: tuple[int, int] | None


def read(root: str | Path, images: str | Path | None = None, *, classes: Sequence[str] | None = None) -> VideoSet:
    """The sequences of a MOTS folder or zip archive; class id 1 is the first of `classes`.

    Without `classes`, those of a classes.txt at the root, one name per line, else car and pedestrian.

    Annotations are read when a sequence is asked for. Raises InputError for a folder without annotations, FormatError,
    with file and line or frame, for ones that are broken.
    """
    files = open_files(root)
    pictures = files if images is None else open_files(images)
    texts, maps = _texts(files), _maps(files)
    names = sorted({*texts, *maps})
    if not names:
        raise InputError(f"{files}: expected MOTS's layout: instances, instances_txt or <sequence>/gt/gt.txt")
    classes = tuple(classes or _stated_classes(files) or MOTS)
    frames = _frames(pictures, names)
    entries = [_Sequence(name, frames.get(name, {}), texts.get(name), maps.get(name, {})) for name in names]
    return VideoSet(videos=_Sequences(files, pictures, entries, len(classes)), classes=classes)


class _Sequences(LazyVideos[_Sequence]):
    cache_size = 1024

    def __init__(self, files: Files, pictures: Files, entries: Sequence[_Sequence], num_classes: int) -> None:
        super().__init__(entries)
        self.files, self.pictures, self.num_classes = files, pictures, num_classes

    def make(self, entry: _Sequence) -> Video:
        held = self._from_maps(entry) if entry.text is None else self._from_text(entry, entry.text)
        if held.size is None:
            raise FormatError(f"{self.files}: sequence {entry.name}: neither objects nor frames tell its size")
        order = _numbers(entry, held.columns)
        names = [entry.frames.get(number, f"{entry.name}/{number:06d}.png") for number in order]
        tracks = tuple(
            self._track(number, held.classes[number], [column.get(frame) for frame in order], entry.name)
            for number, column in held.columns.items()
        )
        frames = StoredFrames(self.pictures, names, held.size)
        return Video(id=entry.name, size=held.size, frames=frames, tracks=tracks)

    def _track(self, number: int, kind: int, column: Sequence[RLE | None], sequence: str) -> Track:
        if IGNORED in (number, kind * PER_CLASS):
            return Track(id=number, label=0, score=1.0, rles=tuple(column), ignore=True)
        if not 1 <= kind <= self.num_classes:
            known = f"expected 1 to {self.num_classes}"
            raise FormatError(f"{self.files}: sequence {sequence}: object {number} is of class {kind}, {known}")
        return Track(id=number, label=kind - 1, score=1.0, rles=tuple(column))

    def _size(self, entry: _Sequence) -> tuple[int, int] | None:
        if not entry.frames:
            return None
        name = entry.frames[min(entry.frames)]
        return check_header(self.pictures.read(name), self.pictures.where(name)).size

    def _from_maps(self, entry: _Sequence) -> _Held:
        order = sorted(entry.maps)
        size = self._size(entry) or self._map(entry.maps[order[0]], None).shape
        found = separate(self._map(entry.maps[frame], size) for frame in order)
        columns = {
            number: {frame: rle for frame, rle in zip(order, column, strict=True) if rle is not None}
            for number, column in found.items()
        }
        return _Held(columns, {number: number // PER_CLASS for number in columns}, size)

    def _map(self, name: str, size: tuple[int, int] | None) -> np.ndarray:
        return decode_map(self.files.read(name), size, self.files.where(name))

    def _from_text(self, entry: _Sequence, name: str) -> _Held:
        columns: dict[int, dict[int, RLE]] = {}
        classes: dict[int, int] = {}
        size = self._size(entry)
        for place, line in enumerate(self.files.read(name).decode("latin-1").splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{self.files.where(name)}: line {place}"
            frame, number, kind, rle = _parse(line, size, where)
            size = rle.size
            if frame in columns.setdefault(number, {}):
                raise FormatError(f"{where}: object {number} is in frame {frame} already")
            if classes.setdefault(number, kind) != kind:
                raise FormatError(f"{where}: object {number} is of class {kind}, before it was of {classes[number]}")
            columns[number][frame] = rle
        return _Held(columns, classes, size)


def _parse(line: str, size: tuple[int, int] | None, where: str) -> tuple[int, int, int, RLE]:
    """Frame, object, class and mask of a line of text."""
    words = line.split(" ")
    if len(words) != 6 or not line.isascii() or not all(word.isdigit() and len(word) < 12 for word in words[:5]):
        raise FormatError(f"{where}: expected 'frame id class height width rle', got {line[:60]!r}")
    frame, number, kind, height, width = (int(word) for word in words[:5])
    if frame > _LONGEST:
        raise FormatError(f"{where}: frame {frame} is more than is supported")
    stated = check_size(height, width, where)
    if size is not None and stated != size:
        hint = ", width and height are swapped" if stated == size[::-1] else ""
        raise FormatError(f"{where}: expected a mask of {size[1]}x{size[0]}, got {width}x{height}{hint}")
    counts = words[5].encode("ascii")
    masks.check_counts(counts, stated, where)
    return frame, number, kind, RLE(stated, counts)


def _numbers(entry: _Sequence, columns: Mapping[int, Mapping[int, RLE]]) -> list[int]:
    """The frames of the video: those that have an image, else all from the first to the last that holds anything.

    Without images, a sequence starts at frame 0, or at 1 where nothing is in frame 0 (the MOTS challenge).
    """
    if entry.frames:
        held = {frame for column in columns.values() for frame in column}
        if lost := held - set(entry.frames):
            raise FormatError(f"sequence {entry.name}: objects in frame {min(lost)}, which has no image")
        return sorted(entry.frames)
    annotated = set(entry.maps) | {frame for column in columns.values() for frame in column}
    return list(range(min(1, *annotated), max(annotated) + 1)) if annotated else []


def _stated_classes(files: Files) -> list[str]:
    if not files.find(_CLASSES):
        return []
    return decode_text(files.read(_CLASSES), files.where(_CLASSES)).split("\n")[:-1]


def _texts(files: Files) -> dict[str, str]:
    """Sequence -> its text file."""
    found = {}
    for name in files.names:
        path = PurePosixPath(name)
        if path.parent.name == "instances_txt" and path.suffix == ".txt":
            found[path.stem] = name
        elif path.parts[-2:] == ("gt", "gt.txt") and len(path.parts) >= 3:
            found[path.parts[-3]] = name
    return found


def _maps(files: Files) -> dict[str, dict[int, str]]:
    return _numbered(files, "instances")


def _frames(files: Files, names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Sequence -> frame number -> image, from the first layout that has any."""
    for folder in ("image_02", "images", None):
        if found := _numbered(files, folder):
            return found
    inner: dict[str, dict[int, str]] = {}
    for name in files.names:
        path = PurePosixPath(name)
        if path.parent.name == "img1" and path.parent.parent.name in names and path.stem.isdigit() and is_image(name):
            inner.setdefault(path.parent.parent.name, {})[int(path.stem)] = name
    return inner


def _numbered(files: Files, folder: str | None) -> dict[str, dict[int, str]]:
    """Images <folder>/<sequence>/<number>.png anywhere in the tree; with no folder, those of the root's subfolders."""
    found: dict[str, dict[int, str]] = {}
    for name in files.names:
        parts = PurePosixPath(name).parts
        fits = len(parts) == 2 if folder is None else len(parts) >= 3 and parts[-3] == folder
        stem = PurePosixPath(name).stem
        if fits and stem.isdigit() and is_image(name):
            found.setdefault(parts[-2], {})[int(stem)] = name
    return found


def write(out: str | Path, videos: VideoSet, *, text: bool = True, frames: bool = True) -> Omissions:
    """Write instances_txt/<sequence>.txt, or instances/<sequence>/000000.png, and image_02/<sequence>/000000.png.

    The folder appears whole or not at all. Raises InputError for more objects of one class in a video than the numbers
    hold. Returns what could not be held.
    """
    losses = Omissions()
    with new_folder(out) as root:
        if videos.classes != MOTS:
            names = "".join(f"{plain(name)}\n" for name in videos.classes)
            (root / _CLASSES).write_text(names, encoding="utf-8")
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            losses.note_times(video)
            numbers = _new_numbers(video, losses)
            place = root / ("instances_txt" if text else f"instances/{name}")
            place.mkdir(parents=True, exist_ok=True)
            if frames:
                store_frames(video, root / "image_02" / name, digits=6)
            maps = enumerate(label_maps(video, numbers, losses))
            if text:
                lines = [line for t, merged in maps for line in _lines(t, merged)]
                (place / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            else:
                for t, merged in maps:
                    (place / f"{t:06d}.png").write_bytes(encode_map(merged, wide=True))
    return losses


def _new_numbers(video: Video, losses: Omissions) -> dict[int, int]:
    """Track id -> class x 1000 + instance; where all ids are such numbers already, they are kept."""
    tracks = video.tracks or ()
    objects = [track for track in tracks if not track.ignore]
    losses.note_scores(tracks)
    losses.note("ignored regions of their own (they become one)", max(0, len(tracks) - len(objects) - 1))
    numbers = {track.id: IGNORED for track in tracks if track.ignore}
    if all(track.id // PER_CLASS == track.label + 1 for track in objects):
        numbers |= {track.id: track.id for track in objects}
    else:
        losses.note("ids of objects (they are numbered anew)", len(objects))
        counts: Counter[int] = Counter()
        for track in objects:
            numbers[track.id] = (track.label + 1) * PER_CLASS + counts[track.label]
            counts[track.label] += 1
        if max(counts.values()) > PER_CLASS:
            raise InputError(f"video {video.id}: MOTS holds {PER_CLASS} objects of a class, not {max(counts.values())}")
    if any(track.label + 1 >= IGNORED // PER_CLASS for track in objects):
        raise InputError(f"video {video.id}: MOTS holds classes 1 to {IGNORED // PER_CLASS - 1}")
    return numbers


def _lines(t: int, merged: np.ndarray) -> list[str]:
    """The lines of one frame: time frame, id, class, height, width, run lengths."""
    present = [int(number) for number in np.unique(merged) if number]
    codes = masks.encode(merged[None] == np.array(present)[:, None, None]) if present else []
    height, width = merged.shape
    return [
        f"{t} {number} {number // PER_CLASS} {height} {width} {code.counts.decode('ascii')}"
        for number, code in zip(present, codes, strict=True)
    ]
