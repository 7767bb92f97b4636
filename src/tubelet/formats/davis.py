"""DAVIS 2016, 2017 and 2019 unsupervised: frames as JPEG, objects as label maps in palette PNG.

Layouts read: JPEGImages[/480p]/<sequence>/00000.jpg with Annotations[_unsupervised][/480p]/<sequence>/00000.png, and
lists in ImageSets/<year>/<split>.txt. A folder or a zip archive. There is one class, and 255 is void: a pixel that is
neither to be found nor forbidden. A map of black and white alone (DAVIS 2016) holds one object.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tubelet.core.atomic import new_folder
from tubelet.core.errors import FormatError, InputError, nearest
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.files import decode_text
from tubelet.core.untrusted.images import check_header
from tubelet.formats.classes import DAVIS
from tubelet.formats.files import Files, FormatWarning, StoredFrames, is_image, open_files
from tubelet.formats.label_maps import decode_map, encode_map, separate
from tubelet.formats.lazy import LazyVideos
from tubelet.formats.storing import Omissions, folder_names, label_maps, store_frames

VOID = 255
_ANNOTATIONS = ("Annotations_unsupervised", "Annotations")


class _Sequence(NamedTuple):
    name: str
    frames: tuple[str, ...]
    maps: tuple[str | None, ...]  # one per frame


def read(root: str | Path, *, split: str | None = None, year: int | None = None) -> VideoSet:
    """The sequences of a DAVIS folder as videos, in alphabetical order or in that of `split` ("train", "val", ...).

    Where several years' lists name a split, `year` chooses. Tracks are read from all maps of a sequence when it is
    asked for. Raises InputError for a missing folder or list, FormatError for maps without frames.
    """
    files = open_files(root)
    images, annotations = _base(files, ("JPEGImages",)), _base(files, _ANNOTATIONS)
    if images is None:
        raise InputError(f"{files}: expected DAVIS's layout with a folder JPEGImages")
    grouped, maps = _grouped(files, images), {} if annotations is None else _grouped(files, annotations)
    names = sorted(grouped) if split is None else _listed(files, split, year)
    for name in names:
        if name not in grouped:
            raise InputError(f"{files}: no frames of the sequence {name!r}; {nearest(name, grouped)}")
    entries = [_sequence(files, name, grouped[name], maps.get(name, ())) for name in names]
    return VideoSet(videos=_Sequences(files, entries), classes=DAVIS)


class _Sequences(LazyVideos[_Sequence]):
    cache_size = 1024

    def __init__(self, files: Files, entries: Sequence[_Sequence]) -> None:
        super().__init__(entries)
        self.files = files

    def make(self, entry: _Sequence) -> Video:
        first = entry.frames[0]
        size = check_header(self.files.read(first), self.files.where(first)).size
        tracks = self._tracks(entry, size) if any(entry.maps) else None
        return Video(id=entry.name, size=size, frames=StoredFrames(self.files, entry.frames, size), tracks=tracks)

    def _tracks(self, entry: _Sequence, size: tuple[int, int]) -> tuple[Track, ...]:
        found = separate(
            None if name is None else decode_map(self.files.read(name), size, self.files.where(name))
            for name in entry.maps
        )
        if set(found) == {VOID}:
            found = {1: found[VOID]}  # black and white: the mask of DAVIS 2016
        return tuple(
            Track(id=number, label=0, score=1.0, rles=tuple(column), ignore=number == VOID)
            for number, column in found.items()
        )


def _base(files: Files, names: Sequence[str]) -> str | None:
    """The folder of one of these names, at the root or one below, with its resolution's subfolder where it has one."""
    folders = {str(parent) for name in files.names for parent in PurePosixPath(name).parents}
    for wanted in names:
        for folder in sorted(folders, key=lambda path: (path.count("/"), path)):
            if PurePosixPath(folder).name == wanted and folder.count("/") <= 1:
                inner = [sub for sub in ("480p", "Full-Resolution", "1080p") if f"{folder}/{sub}" in folders]
                return f"{folder}/{inner[0]}" if inner else folder
    return None


def _grouped(files: Files, base: str) -> dict[str, tuple[str, ...]]:
    """Sequence -> its image files, in order."""
    grouped: dict[str, list[str]] = {}
    for name in files.below(base):
        parts = PurePosixPath(name).relative_to(base).parts
        if len(parts) == 2 and is_image(name):
            grouped.setdefault(parts[0], []).append(name)
    return {name: tuple(sorted(paths)) for name, paths in grouped.items()}


def _sequence(files: Files, name: str, frames: tuple[str, ...], maps: tuple[str, ...]) -> _Sequence:
    by_stem = {PurePosixPath(path).stem: path for path in maps}
    stems = [PurePosixPath(path).stem for path in frames]
    if extra := sorted(set(by_stem) - set(stems)):
        raise FormatError(f"{files}: sequence {name}: {len(extra)} maps without a frame, the first {extra[0]}")
    missing = [stem for stem in stems if stem not in by_stem]
    if missing and maps:
        warnings.warn(
            f"{files}: sequence {name}: {len(missing)} of {len(frames)} frames without a map, the first {missing[0]}",
            FormatWarning,
            stacklevel=3,
        )
    return _Sequence(name, frames, tuple(by_stem.get(stem) for stem in stems))


def _listed(files: Files, split: str, year: int | None) -> list[str]:
    """The sequences that a list names: one per line (2017), or one pair of paths per frame (2016)."""
    lists = [name for name in files.names if "ImageSets/" in name and name.endswith(".txt")]
    if year is not None:
        lists = [name for name in lists if f"/{year}/" in name]
    fitting = [name for name in lists if PurePosixPath(name).stem == split]
    if not fitting:
        known = nearest(split, {PurePosixPath(name).stem for name in lists} or {"no lists"})
        raise InputError(f"{files}: no list of the split {split!r} in ImageSets; {known}")
    if len(fitting) > 1:
        years = ", ".join(PurePosixPath(name).parent.name for name in fitting)
        raise InputError(f"{files}: the split {split!r} is listed for several years ({years}); say which")
    lines = decode_text(files.read(fitting[0]), files.where(fitting[0])).split("\n")
    words = [line.split()[0] for line in lines if line.split()]
    return list(dict.fromkeys(PurePosixPath(word).parent.name if "/" in word else word for word in words))


def write(out: str | Path, videos: VideoSet, *, frames: bool = True) -> Omissions:
    """Write JPEGImages/<sequence>/00000.* and Annotations/<sequence>/00000.png; the folder appears whole or not at all.

    Raises InputError for a video of more objects than a palette holds. Returns what could not be held.
    """
    losses = Omissions()
    losses.note("classes of objects (all become one)", len(videos.classes) - 1)
    with new_folder(out) as root:
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            losses.note_times(video)
            numbers = _palette_numbers(video, losses)
            place = root / "Annotations" / name
            place.mkdir(parents=True)
            if frames:
                store_frames(video, root / "JPEGImages" / name)
            for t, merged in enumerate(label_maps(video, numbers, losses)):
                (place / f"{t:05d}.png").write_bytes(encode_map(merged))
    return losses


def _palette_numbers(video: Video, losses: Omissions) -> dict[int, int]:
    """Track id -> palette index; ids from 1 to 254 are kept where all are such."""
    tracks = video.tracks or ()
    objects = [track for track in tracks if not track.ignore]
    losses.note_scores(tracks)
    losses.note("ignored regions of their own (they become one void)", max(0, len(tracks) - len(objects) - 1))
    if len(objects) >= VOID:
        raise InputError(f"video {video.id}: a palette holds {VOID - 1} objects, not {len(objects)}")
    kept = all(0 < track.id < VOID for track in objects)
    losses.note("ids of objects (they are numbered anew)", 0 if kept else len(objects))
    numbers = {track.id: track.id if kept else n for n, track in enumerate(objects, start=1)}
    return numbers | {track.id: VOID for track in tracks if track.ignore}
