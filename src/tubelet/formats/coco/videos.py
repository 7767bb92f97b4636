"""Read and write COCO with tracks: images belong to videos, and each annotation has a track_id."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tubelet.core import masks
from tubelet.core.atomic import new_folder
from tubelet.core.errors import FormatError
from tubelet.core.text import to_json
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats.coco.document import Annotation, CocoDocument, Id, Image, label_of, load
from tubelet.formats.files import Files, StoredFrames, check_size, clean_name, open_files
from tubelet.formats.lazy import LazyVideos
from tubelet.formats.storing import Omissions, folder_names, store_frames


@dataclass(slots=True)
class _Entry:
    """One video."""

    name: str
    images: list[Image] = field(default_factory=list)  # sorted by time
    objects: dict[Id, list[Annotation]] = field(default_factory=lambda: defaultdict(list))  # by image id


def read(annotations: str | Path, images: str | Path | None = None) -> VideoSet:
    """Read a COCO file whose annotations have a track_id; classes are sorted by category id.

    Images with the same video_id are a video, or, without video_id, images in the same folder. They
    are sorted by frame_id, then by name. A mask is parsed when its video is used.

    Args:
        annotations: The JSON file.
        images: Folder or zip archive of the images; by default `images` beside the JSON.

    Raises:
        InputError: if the file is missing.
        FormatError: if the file is not of this format.

    Example:
        >>> import msgspec, tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.coco import videos
        >>> names = ["dog/00000.jpg", "dog/00001.jpg"]
        >>> images = [{"id": n, "file_name": name, "width": 6, "height": 4} for n, name in enumerate(names)]
        >>> document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "dog"}]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "images").mkdir()
        ...     _ = Path(folder, "train.json").write_bytes(msgspec.json.encode(document))
        ...     videos.read(Path(folder, "train.json")).videos[0]
        Video(id='dog', size=(4, 6), frames=2, fps=25, tracks=0)
    """
    path = Path(annotations)
    document = load(path)
    files = open_files(path.parent / "images" if images is None else images)
    videos = _Videos(_entries(document), str(path), files, document.labels)
    return VideoSet(videos=videos, classes=document.classes)


def write(out: str | Path, videos: VideoSet, *, frames: bool = True) -> Omissions:
    """Write instances.json and, if `frames`, images/<video>/00000.*; the folder is written atomically.

    Returns what the format could not hold.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats.coco import videos
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[None], fps=30.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     videos.write(Path(folder, "set"), VideoSet(videos=[video], classes=("dog",)), frames=False).lines()
        ['frame rates or time stamps of videos: 1']
    """
    losses = Omissions()
    with new_folder(out) as root:
        tree: dict[str, list[Any]] = {"videos": [], "images": [], "annotations": []}
        for number, (name, video) in enumerate(zip(folder_names(videos), videos.videos, strict=True), start=1):
            losses.note_times(video)
            losses.note_scores(video.tracks or ())
            stored = store_frames(video, root / "images" / name) if frames else _default_names(video)
            _add_video(tree, number, name, video, stored)

        tree["categories"] = [{"id": n, "name": name} for n, name in enumerate(videos.classes, start=1)]
        (root / "instances.json").write_text(to_json(tree), encoding="utf-8")
    return losses


def _add_video(tree: dict[str, list[Any]], number: int, name: str, video: Video, files: Sequence[str]) -> None:
    """Add a video with its images and annotations to the tree of a file."""
    tree["videos"].append({"id": number, "name": name})
    first = len(tree["images"]) + 1
    for t, file in enumerate(files):
        tree["images"].append(
            {
                "id": first + t,
                "video_id": number,
                "frame_id": t,
                "file_name": f"{name}/{file}",
                "height": video.size[0],
                "width": video.size[1],
            }
        )

    for annotation in _annotations(video):
        annotation["id"] = len(tree["annotations"]) + 1
        annotation["image_id"] += first
        tree["annotations"].append({**annotation, "video_id": number})


class _Videos(LazyVideos[_Entry]):
    def __init__(self, entries: Sequence[_Entry], path: str, files: Files, labels: dict[Id, int]) -> None:
        super().__init__(entries)
        self.path = path
        self.files = files
        self.labels = labels

    def make(self, entry: _Entry) -> Video:
        where = f"{self.path}: video {entry.name}"
        first = entry.images[0]
        size = check_size(first.height, first.width, where)
        for image in entry.images:
            if (image.height, image.width) != size:
                came = f"{image.width}x{image.height}"
                raise FormatError(f"{where}: image {image.id} is {came}, the first is {size[1]}x{size[0]}")

        names = [clean_name(image.file_name, where) for image in entry.images]
        frames = StoredFrames(self.files, names, size)
        return Video(id=entry.name, size=size, frames=frames, tracks=tuple(self._tracks(entry, size, where)))

    def _tracks(self, entry: _Entry, size: tuple[int, int], where: str) -> Iterator[Track]:
        rles: dict[int, list[masks.RLE | None]] = {}  # of each track, one per frame
        kinds: dict[int, tuple[int, bool]] = {}  # label and iscrowd of each track
        for t, image in enumerate(entry.images):
            for annotation in entry.objects.get(image.id, ()):
                here = f"{where}, frame {t}: annotation {annotation.id}"
                track_id = annotation.track
                if track_id is None:
                    raise FormatError(f"{here}: expected a track_id")

                kind = (label_of(annotation, self.labels, here), bool(annotation.iscrowd))
                if kinds.setdefault(track_id, kind) != kind:
                    raise FormatError(f"{here}: track {track_id} is of another class than before")

                track_rles = rles.setdefault(track_id, [None] * len(entry.images))
                if track_rles[t] is not None:
                    raise FormatError(f"{here}: track {track_id} is in this frame already")
                track_rles[t] = annotation.mask(size, here)

        for track_id, track_rles in sorted(rles.items()):
            label, crowd = kinds[track_id]
            yield Track(id=track_id, label=label, score=1.0, rles=tuple(track_rles), ignore=crowd)


def _entries(document: CocoDocument) -> list[_Entry]:
    """Group images and annotations by video."""
    names = {video.id: video.name or str(video.id) for video in document.videos}
    entries: dict[Id, _Entry] = {}  # by video_id, or by folder
    by_image: dict[Id, _Entry] = {}
    for image in document.images:
        folder = str(PurePosixPath(image.file_name.replace("\\", "/")).parent)
        key = folder if image.video_id is None else image.video_id
        entry = entries.setdefault(key, _Entry(names.get(key, str(key))))
        entry.images.append(image)
        by_image[image.id] = entry

    for annotation in document.annotations:
        by_image[annotation.image_id].objects[annotation.image_id].append(annotation)

    for entry in entries.values():
        entry.images.sort(key=lambda image: (image.frame_id, image.file_name.replace("\\", "/")))
    return list(entries.values())


def _annotations(video: Video) -> Iterator[dict[str, Any]]:
    """One annotation per object and frame; as `image_id`, the frame's number from 0."""
    for track in video.tracks or ():
        for t, rle in enumerate(track.rles):
            if rle is None:
                continue
            x1, y1, x2, y2 = masks.boxes([rle])[0].tolist()
            yield {
                "id": 0,
                "image_id": t,
                "track_id": track.id,
                "category_id": track.label + 1,
                "iscrowd": int(track.ignore),
                "segmentation": masks.to_json(rle),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": masks.areas([rle])[0].item(),
            }


def _default_names(video: Video) -> list[str]:
    return [f"{t:05d}.jpg" for t in range(len(video))]
