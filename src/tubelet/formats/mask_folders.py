"""Plain PNG folders: one black and white image per object and frame, which every tool reads and which may overlap.

    frames/<video>/00000.png        frames, in any image form
    masks/<video>/<id>_<class>/00000.png    white where the object is; no file, or all black, where it is absent

A class called `ignore` holds regions that are neither to be found nor forbidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tubelet.core import masks
from tubelet.core.atomic import new_folder
from tubelet.core.errors import FormatError, InputError
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.images import check_header
from tubelet.formats.files import Files, StoredFrames, is_image, open_files
from tubelet.formats.label_maps import decode_map, encode_binary
from tubelet.formats.lazy import LazyVideos
from tubelet.formats.storing import Omissions, folder_names, store_frames

IGNORED = "ignore"


class _Object(NamedTuple):
    id: int
    name: str
    maps: dict[str, str]  # stem of a frame -> file


class _Entry(NamedTuple):
    name: str
    frames: tuple[str, ...]
    objects: tuple[_Object, ...]


def read(root: str | Path, *, classes: Sequence[str] | None = None) -> VideoSet:
    """The videos of such a folder or zip archive; classes are those of the folder names, in alphabetical order.

    Raises InputError where the folders are missing, FormatError for names and masks that are not as above.
    """
    files = open_files(root)
    frames: dict[str, list[str]] = {}
    objects: dict[str, dict[str, dict[str, str]]] = {}
    for name in files.names:
        parts = PurePosixPath(name).parts
        if is_image(name) and len(parts) >= 3 and parts[-3] == "frames":
            frames.setdefault(parts[-2], []).append(name)
        elif is_image(name) and len(parts) >= 4 and parts[-4] == "masks":
            objects.setdefault(parts[-3], {}).setdefault(parts[-2], {})[PurePosixPath(name).stem] = name
    if not frames:
        raise InputError(f"{files}: expected frames in frames/<video> and masks in masks/<video>/<id>_<class>")
    entries = [
        _Entry(video, tuple(sorted(frames[video])), _objects(files, video, objects.get(video, {})))
        for video in sorted(frames)
    ]
    found = {held.name for entry in entries for held in entry.objects} - {IGNORED}
    names = tuple(sorted(found)) if classes is None else tuple(classes)
    if unknown := found - set(names):
        raise FormatError(f"{files}: the class {min(unknown)!r} is not among {', '.join(names)}")
    return VideoSet(videos=_Videos(files, entries, names), classes=names)


def write(out: str | Path, videos: VideoSet, *, frames: bool = True) -> Omissions:
    """Write such folders, whole or not at all; an object that is absent in a frame has no file there."""
    losses = Omissions()
    used: set[int] = set()
    with new_folder(out) as root:
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            losses.note_times(video)
            losses.note_scores(video.tracks or ())
            if frames:
                store_frames(video, root / "frames" / name)
            for track in video.tracks or ():
                kind = IGNORED if track.ignore else videos.classes[track.label]
                _write_object(root / "masks" / name / f"{track.id}_{_as_folder(kind)}", track)
                losses.note("classes of ignored regions", int(track.ignore))
                used |= set() if track.ignore else {track.label}
    losses.note("classes without an object", len(videos.classes) - len(used))
    return losses


class _Videos(LazyVideos[_Entry]):
    cache_size = 1024

    def __init__(self, files: Files, entries: Sequence[_Entry], classes: tuple[str, ...]) -> None:
        super().__init__(entries)
        self.files, self.classes = files, classes

    def make(self, entry: _Entry) -> Video:
        first = entry.frames[0]
        size = check_header(self.files.read(first), self.files.where(first)).size
        tracks = tuple(self._track(held, entry, size) for held in entry.objects)
        return Video(id=entry.name, size=size, frames=StoredFrames(self.files, entry.frames, size), tracks=tracks)

    def _track(self, held: _Object, entry: _Entry, size: tuple[int, int]) -> Track:
        stems = [PurePosixPath(frame).stem for frame in entry.frames]
        if extra := sorted(set(held.maps) - set(stems)):
            raise FormatError(f"{self.files}: video {entry.name}, object {held.id}: no frame for the mask {extra[0]}")
        ignored = held.name == IGNORED
        return Track(
            id=held.id,
            label=0 if ignored else self.classes.index(held.name),
            score=1.0,
            rles=tuple(self._mask(held.maps.get(stem), size) for stem in stems),
            ignore=ignored,
        )

    def _mask(self, name: str | None, size: tuple[int, int]) -> masks.RLE | None:
        if name is None:
            return None
        mask = decode_map(self.files.read(name), size, self.files.where(name)) > 0
        return masks.encode(mask[None])[0] if mask.any() else None


def _objects(files: Files, video: str, folders: dict[str, dict[str, str]]) -> tuple[_Object, ...]:
    objects = []
    for folder, maps in sorted(folders.items()):
        number, separator, name = folder.partition("_")
        if not (separator and name and number.isascii() and number.isdigit()):
            raise FormatError(f"{files}: video {video}: expected a folder <id>_<class>, got {folder!r}")
        objects.append(_Object(int(number), name, maps))
    return tuple(sorted(objects))


def _write_object(folder: Path, track: Track) -> None:
    folder.mkdir(parents=True)
    for t, rle in enumerate(track.rles):
        if rle is not None:
            (folder / f"{t:05d}.png").write_bytes(encode_binary(masks.decode([rle])[0]))


def _as_folder(name: str) -> str:
    return name.replace("/", "-").replace("\\", "-")
