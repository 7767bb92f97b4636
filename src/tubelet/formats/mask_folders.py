"""Read and write plain PNG folders: one black and white image per object and frame, so masks may overlap.

    frames/<video>/00000.png                frames, in any image format
    masks/<video>/<id>_<class>/00000.png    white inside the mask; no file, or all black, if the object is absent

Objects of the class `ignore` are regions to ignore in evaluation.
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
    name: str  # of the class
    maps: dict[str, str]  # stem of the frame's file -> path of the mask


class _Entry(NamedTuple):
    name: str
    frames: tuple[str, ...]  # paths of the images
    objects: tuple[_Object, ...]


def read(root: str | Path, *, classes: Sequence[str] | None = None) -> VideoSet:
    """Read a folder or zip archive; masks are read when a video is used.

    Args:
        root: The folder or archive.
        classes: Names of the classes; by default those of the folder names, in alphabetical order.

    Raises:
        InputError: if there are no frames.
        FormatError: if a folder or mask is not of this layout, or a class is not in `classes`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import mask_folders
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[torch.zeros(3, 4, 6, dtype=torch.uint8)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = mask_folders.write(Path(folder, "set"), VideoSet(videos=[video], classes=("dog",)))
        ...     mask_folders.read(Path(folder, "set")).videos[0]
        Video(id='dog', size=(4, 6), frames=1, fps=25, tracks=0)
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

    used = {obj.name for entry in entries for obj in entry.objects} - {IGNORED}
    names = tuple(sorted(used)) if classes is None else tuple(classes)
    unknown = used - set(names)
    if unknown:
        raise FormatError(f"{files}: the class {min(unknown)!r} is not among {', '.join(names)}")
    return VideoSet(videos=_Videos(files, entries, names), classes=names)


def write(out: str | Path, videos: VideoSet, *, frames: bool = True) -> Omissions:
    """Write a new folder, atomically; an object that is absent from a frame has no file for it.

    Args:
        out: The new folder.
        videos: The set.
        frames: Whether to write the images too.

    Returns:
        What these folders cannot store, with counts: times, scores, unused classes.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core import masks
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import mask_folders
        >>> rle = masks.encode(np.ones((1, 4, 6), bool))[0]
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=(rle,))
        >>> video = tubelet.Video(id="v", size=(4, 6), frames=[None], tracks=(track,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = Path(folder, "set")
        ...     _ = mask_folders.write(out, VideoSet(videos=[video], classes=("dog",)), frames=False)
        ...     [path.relative_to(out).as_posix() for path in out.rglob("*.png")]
        ['masks/v/1_dog/00000.png']
    """
    omissions = Omissions()
    used: set[int] = set()
    with new_folder(out) as root:
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            omissions.note_times(video)
            omissions.note_scores(video.tracks or ())
            if frames:
                store_frames(video, root / "frames" / name)

            for track in video.tracks or ():
                class_name = IGNORED if track.ignore else videos.classes[track.label]
                _write_object(root / "masks" / name / f"{track.id}_{_as_folder(class_name)}", track)
                omissions.note("classes of ignored regions", int(track.ignore))
                if not track.ignore:
                    used.add(track.label)

    omissions.note("classes without an object", len(videos.classes) - len(used))
    return omissions


class _Videos(LazyVideos[_Entry]):
    cache_size = 1024

    def __init__(self, files: Files, entries: Sequence[_Entry], classes: tuple[str, ...]) -> None:
        super().__init__(entries)
        self.files = files
        self.classes = classes

    def make(self, entry: _Entry) -> Video:
        first = entry.frames[0]
        size = check_header(self.files.read(first), self.files.where(first)).size
        tracks = tuple(self._track(obj, entry, size) for obj in entry.objects)
        frames = StoredFrames(self.files, entry.frames, size)
        return Video(id=entry.name, size=size, frames=frames, tracks=tracks)

    def _track(self, obj: _Object, entry: _Entry, size: tuple[int, int]) -> Track:
        stems = [PurePosixPath(frame).stem for frame in entry.frames]
        extra = sorted(set(obj.maps) - set(stems))
        if extra:
            where = f"{self.files}: video {entry.name}, object {obj.id}"
            raise FormatError(f"{where}: no frame for the mask {extra[0]}")

        is_ignored = obj.name == IGNORED
        return Track(
            id=obj.id,
            label=0 if is_ignored else self.classes.index(obj.name),
            score=1.0,
            rles=tuple(self._mask(obj.maps.get(stem), size) for stem in stems),
            ignore=is_ignored,
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
        has_number = number.isascii() and number.isdigit()
        if not (separator and name and has_number):
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
