"""Read SA-V: videos of 24 frames a second, of which every fourth is annotated.

    training      sav_000001.mp4 and sav_000001_manual.json: `masklet`, a list of frames, of objects, of RLE masks, and
                  `masklet_id`; sav_000001_auto.json has masks that nobody has checked
    validation    JPEGImages_24fps/<video>/00000.jpg, Annotations_6fps/<video>/<object>/00000.png, white inside the mask

The annotated frames are read, 6 a second. There is one class. Manual masks are preferred; automatic ones are read of
videos that have no others.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.masks import RLE
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.documents import decode_json, decode_json_as
from tubelet.core.untrusted.images import check_header
from tubelet.formats.classes import DAVIS
from tubelet.formats.files import Files, Folder, FormatWarning, StoredFrames, is_image, open_files
from tubelet.formats.label_maps import decode_map
from tubelet.formats.lazy import LazyVideos
from tubelet.video.reader import open_video
from tubelet.video.trimming import trim

IMAGES, ANNOTATIONS = "JPEGImages_24fps", "Annotations_6fps"
MANUAL, AUTOMATIC = "_manual.json", "_auto.json"
STEP = 4  # frames from one annotated frame to the next
FPS = 24.0


class Masklets(msgspec.Struct):
    """The JSON file of one video of the training set.

    Example:
        >>> import msgspec
        >>> from tubelet.formats.sav import Masklets
        >>> Masklets(masklet=[[msgspec.Raw(b'{"size": [4, 6], "counts": "0h0"}')]], masklet_id=[0]).masklet_id
        [0]
    """

    masklet: list[list[msgspec.Raw]]
    masklet_id: list[int]


class _Images(NamedTuple):
    """One video of the validation set."""

    name: str
    frames: tuple[str, ...]  # the annotated ones
    objects: dict[int, dict[str, str]]  # number -> stem of the frame -> path of the mask


def read(root: str | Path) -> VideoSet:
    """Read a folder of either layout, or one JSON file; masks are read when a video is used.

    Raises InputError if there are no such files, FormatError if one is not of this form.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tubelet.formats import sav
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frames, objects = Path(folder, "JPEGImages_24fps/v"), Path(folder, "Annotations_6fps/v/000")
        ...     for path in (frames, objects):
        ...         path.mkdir(parents=True)
        ...     for t in range(5):
        ...         Image.new("RGB", (6, 4)).save(frames / f"{t:05d}.jpg")
        ...     for t in (0, 4):
        ...         Image.new("L", (6, 4), 255).save(objects / f"{t:05d}.png")
        ...     sav.read(folder).videos[0]
        Video(id='v', size=(4, 6), frames=2, fps=6, tracks=1)
    """
    root = Path(root)
    if root.suffix.lower() == ".json":
        return VideoSet(videos=_FileVideos(Folder(root.parent), [root.name]), classes=DAVIS)

    files = open_files(root)
    folders = _image_folders(files)
    if folders:
        return VideoSet(videos=_ImageVideos(files, folders), classes=DAVIS)

    documents = _documents(files)
    if not documents:
        raise InputError(f"{files}: expected {ANNOTATIONS}, or files such as sav_000001{MANUAL}")
    return VideoSet(videos=_FileVideos(files, documents), classes=DAVIS)


def _image_folders(files: Files) -> list[_Images]:
    """The videos of the validation layout."""
    frames: dict[str, dict[str, str]] = {}  # video -> stem -> path
    objects: dict[str, dict[int, dict[str, str]]] = {}
    for name in files.names:
        parts = PurePosixPath(name).parts
        stem = PurePosixPath(name).stem
        if is_image(name) and IMAGES in parts[:-2]:
            frames.setdefault(parts[-2], {})[stem] = name
        elif is_image(name) and ANNOTATIONS in parts[:-3] and parts[-2].isascii() and parts[-2].isdigit():
            objects.setdefault(parts[-3], {}).setdefault(int(parts[-2]), {})[stem] = name

    videos = []
    for video, of_video in sorted(objects.items()):
        stems = sorted({stem for maps in of_video.values() for stem in maps})
        missing = [stem for stem in stems if stem not in frames.get(video, {})]
        if missing:
            raise FormatError(f"{files}: video {video}: {len(missing)} masks without a frame, the first {missing[0]}")
        videos.append(_Images(video, tuple(frames[video][stem] for stem in stems), dict(sorted(of_video.items()))))
    return videos


def _documents(files: Files) -> list[str]:
    """The JSON file of each video: the manual one if it has both."""
    manual = {name.removesuffix(MANUAL): name for name in files.names if name.endswith(MANUAL)}
    automatic = {name.removesuffix(AUTOMATIC): name for name in files.names if name.endswith(AUTOMATIC)}
    both = manual.keys() & automatic.keys()
    if both:
        what = f"automatic masks of {len(both)} videos that have manual ones are left out"
        warnings.warn(f"{files}: {what}", FormatWarning, stacklevel=3)
    return [name for _, name in sorted((automatic | manual).items())]


class _ImageVideos(LazyVideos[_Images]):
    cache_size = 1024

    def __init__(self, files: Files, entries: Sequence[_Images]) -> None:
        super().__init__(entries)
        self.files = files

    def make(self, entry: _Images) -> Video:
        first = entry.frames[0]
        size = check_header(self.files.read(first), self.files.where(first)).size
        stems = [PurePosixPath(name).stem for name in entry.frames]
        rles = {number: [self._mask(maps.get(stem), size) for stem in stems] for number, maps in entry.objects.items()}
        frames = StoredFrames(self.files, entry.frames, size)
        return Video(id=entry.name, size=size, frames=frames, fps=FPS / STEP, tracks=_as_tracks(rles))

    def _mask(self, name: str | None, size: tuple[int, int]) -> RLE | None:
        if name is None:
            return None
        mask = decode_map(self.files.read(name), size, self.files.where(name)) > 0
        return masks.encode(mask[None])[0] if mask.any() else None


class _FileVideos(LazyVideos[str]):
    cache_size = 64  # masks of hundreds of objects each

    def __init__(self, files: Files, documents: Sequence[str]) -> None:
        super().__init__(documents)
        self.files = files

    def make(self, entry: str) -> Video:
        where = self.files.where(entry)
        content: Masklets = decode_json_as(
            Masklets, self.files.read(entry), where, complaint="expected the masklets of SA-V"
        )
        video = self._annotated_frames(entry, len(content.masklet))
        return replace(video, tracks=_as_tracks(_masks_by_id(content, video.size, where)))

    def _annotated_frames(self, document: str, length: int) -> Video:
        """The frames of the video beside the JSON file that have annotations."""
        name = document.removesuffix(MANUAL).removesuffix(AUTOMATIC) + ".mp4"
        if not isinstance(self.files, Folder):
            raise InputError(f"{self.files.where(name)}: a video in an archive is not read; unpack it")

        video = open_video(self.files.path / name)
        annotated = trim(video, every=STEP)
        if len(annotated) != length:
            given = f"{length} frames with masks for a video of {len(video)} frames"
            raise FormatError(f"{self.files.where(document)}: {given}, expected {len(annotated)}, one of {STEP}")
        return annotated


def _masks_by_id(content: Masklets, size: tuple[int, int], where: str) -> dict[int, list[RLE | None]]:
    rles: dict[int, list[RLE | None]] = {id: [] for id in content.masklet_id}
    if len(rles) != len(content.masklet_id):
        raise FormatError(f"{where}: two masklets have the same id")

    for t, frame in enumerate(content.masklet):
        if len(frame) != len(rles):
            raise FormatError(f"{where}, frame {t}: {len(frame)} masks for {len(rles)} masklets")
        for (id, of_object), raw in zip(rles.items(), frame, strict=True):
            here = f"{where}, frame {t}: masklet {id}"
            rle = masks.from_json(decode_json(raw, here), size, here)
            of_object.append(rle if rle is not None and masks.areas([rle])[0] > 0 else None)
    return rles


def _as_tracks(rles: Mapping[int, Sequence[RLE | None]]) -> tuple[Track, ...]:
    """The objects that are seen in any frame."""
    return tuple(
        Track(id=id, label=0, score=1.0, rles=tuple(of_object)) for id, of_object in rles.items() if any(of_object)
    )
