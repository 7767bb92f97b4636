"""Read and write DAVIS 2016, 2017 and 2019 unsupervised: frames as JPEG, objects as label maps in palette PNG.

    frames         JPEGImages[/480p]/<sequence>/00000.jpg
    annotations    Annotations[_unsupervised][/480p]/<sequence>/00000.png
    splits         ImageSets/<year>/<split>.txt

There is one class. Label 255 is void: pixels that evaluation ignores. A black and white map (DAVIS 2016) is one object.
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
    frames: tuple[str, ...]  # paths of the images
    maps: tuple[str | None, ...]  # path of each frame's label map


def read(root: str | Path, *, split: str | None = None, year: int | None = None) -> VideoSet:
    """Read the sequences of a folder or zip archive; a video's label maps are read when it is used.

    Args:
        root: The folder or archive.
        split: Name of a list in ImageSets ("train", "val", ...), which also gives the order; by
            default all sequences, in alphabetical order.
        year: Year of the list, if several years have that split.

    Raises:
        InputError: if frames or the list are missing.
        FormatError: if there are maps without a frame.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import davis
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[torch.zeros(3, 4, 6, dtype=torch.uint8)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = davis.write(Path(folder, "set"), VideoSet(videos=[video], classes=("object",)))
        ...     davis.read(Path(folder, "set")).videos[0]
        Video(id='dog', size=(4, 6), frames=1, fps=25, tracks=0)
    """
    files = open_files(root)
    image_folder = _base(files, ("JPEGImages",))
    map_folder = _base(files, _ANNOTATIONS)
    if image_folder is None:
        raise InputError(f"{files}: expected DAVIS's layout with a folder JPEGImages")

    frames = _grouped(files, image_folder)
    maps = {} if map_folder is None else _grouped(files, map_folder)
    names = sorted(frames) if split is None else _listed(files, split, year)
    for name in names:
        if name not in frames:
            raise InputError(f"{files}: no frames of the sequence {name!r}; {nearest(name, frames)}")

    entries = [_sequence(files, name, frames[name], maps.get(name, ())) for name in names]
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
        frames = StoredFrames(self.files, entry.frames, size)
        return Video(id=entry.name, size=size, frames=frames, tracks=tracks)

    def _tracks(self, entry: _Sequence, size: tuple[int, int]) -> tuple[Track, ...]:
        by_object = separate(
            None if name is None else decode_map(self.files.read(name), size, self.files.where(name))
            for name in entry.maps
        )
        if set(by_object) == {VOID}:
            by_object = {1: by_object[VOID]}  # black and white: the mask of DAVIS 2016

        return tuple(
            Track(id=number, label=0, score=1.0, rles=tuple(rles), ignore=number == VOID)
            for number, rles in by_object.items()
        )


def _base(files: Files, names: Sequence[str]) -> str | None:
    """The first folder with one of these names, at the root or one level below; its resolution's subfolder if any."""
    folders = {str(parent) for name in files.names for parent in PurePosixPath(name).parents}
    by_depth = sorted(folders, key=lambda path: (path.count("/"), path))
    for name in names:
        for folder in by_depth:
            if PurePosixPath(folder).name == name and folder.count("/") <= 1:
                resolutions = [sub for sub in ("480p", "Full-Resolution", "1080p") if f"{folder}/{sub}" in folders]
                return f"{folder}/{resolutions[0]}" if resolutions else folder
    return None


def _grouped(files: Files, base: str) -> dict[str, tuple[str, ...]]:
    """Sequence -> sorted paths of its images."""
    grouped: dict[str, list[str]] = {}
    for name in files.below(base):
        parts = PurePosixPath(name).relative_to(base).parts
        if len(parts) == 2 and is_image(name):
            grouped.setdefault(parts[0], []).append(name)
    return {name: tuple(sorted(paths)) for name, paths in grouped.items()}


def _sequence(files: Files, name: str, frames: tuple[str, ...], maps: tuple[str, ...]) -> _Sequence:
    by_stem = {PurePosixPath(path).stem: path for path in maps}
    stems = [PurePosixPath(path).stem for path in frames]
    extra = sorted(set(by_stem) - set(stems))
    if extra:
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
    """Sequences of a split. A list has one name per line (2017) or one pair of paths per frame (2016)."""
    lists = [name for name in files.names if "ImageSets/" in name and name.endswith(".txt")]
    if year is not None:
        lists = [name for name in lists if f"/{year}/" in name]

    matching = [name for name in lists if PurePosixPath(name).stem == split]
    if not matching:
        known = nearest(split, {PurePosixPath(name).stem for name in lists} or {"no lists"})
        raise InputError(f"{files}: no list of the split {split!r} in ImageSets; {known}")
    if len(matching) > 1:
        years = ", ".join(PurePosixPath(name).parent.name for name in matching)
        raise InputError(f"{files}: the split {split!r} is listed for several years ({years}); say which")

    lines = decode_text(files.read(matching[0]), files.where(matching[0])).split("\n")
    words = [line.split()[0] for line in lines if line.split()]
    sequences = [PurePosixPath(word).parent.name if "/" in word else word for word in words]
    return list(dict.fromkeys(sequences))


def write(out: str | Path, videos: VideoSet, *, frames: bool = True) -> Omissions:
    """Write JPEGImages/<sequence>/00000.* and Annotations/<sequence>/00000.png, atomically.

    Args:
        out: The new folder.
        videos: The set; where masks overlap, the earlier object keeps the pixel.
        frames: Whether to write the images too.

    Returns:
        What DAVIS cannot store, with counts: classes, times, scores, overlaps.

    Raises:
        InputError: if a video has more than 254 objects.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core import masks
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import davis
        >>> rle = masks.encode(np.ones((1, 4, 6), bool))[0]
        >>> track = tubelet.Track(id=3, label=0, score=1.0, rles=(rle,))
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[None], tracks=(track,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = Path(folder, "set")
        ...     _ = davis.write(out, VideoSet(videos=[video], classes=("object",)), frames=False)
        ...     [path.relative_to(out).as_posix() for path in out.rglob("*.png")]
        ['Annotations/dog/00000.png']
    """
    omissions = Omissions()
    omissions.note("classes of objects (all become one)", len(videos.classes) - 1)
    with new_folder(out) as root:
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            omissions.note_times(video)
            numbers = _palette_numbers(video, omissions)
            folder = root / "Annotations" / name
            folder.mkdir(parents=True)
            if frames:
                store_frames(video, root / "JPEGImages" / name)

            for t, labels in enumerate(label_maps(video, numbers, omissions)):
                (folder / f"{t:05d}.png").write_bytes(encode_map(labels))
    return omissions


def _palette_numbers(video: Video, omissions: Omissions) -> dict[int, int]:
    """Track id -> palette index; ids stay if all of them are from 1 to 254."""
    tracks = video.tracks or ()
    objects = [track for track in tracks if not track.ignore]
    omissions.note_scores(tracks)
    omissions.note("ignored regions of their own (they become one void)", max(0, len(tracks) - len(objects) - 1))
    if len(objects) >= VOID:
        raise InputError(f"video {video.id}: a palette holds {VOID - 1} objects, not {len(objects)}")

    ids_fit = all(0 < track.id < VOID for track in objects)
    omissions.note("ids of objects (they are numbered anew)", 0 if ids_fit else len(objects))
    numbers = {track.id: track.id if ids_fit else n for n, track in enumerate(objects, start=1)}
    return numbers | {track.id: VOID for track in tracks if track.ignore}
