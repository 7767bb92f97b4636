"""COCO with tracks: images that belong to videos, annotations with a track_id, one per object and frame."""

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
    name: str
    images: list[Image] = field(default_factory=list)  # in time
    objects: dict[Id, list[Annotation]] = field(default_factory=lambda: defaultdict(list))  # by image id


def read(annotations: str | Path, images: str | Path | None = None) -> VideoSet:
    """A COCO file whose annotations have a track_id, as videos; classes in the order of category id.

    Images belong to the video that their video_id names, else to their folder; within it they go by frame_id, else by
    name. Segmentations stay as the file holds them until their video is asked for. Raises FormatError for a file of
    another form.
    """
    path = Path(annotations)
    document = load(path)
    files = open_files(path.parent / "images" if images is None else images)
    videos = _Videos(_entries(document), str(path), files, document.labels)
    return VideoSet(videos=videos, classes=document.classes)


def write(out: str | Path, videos: VideoSet, *, frames: bool = True) -> Omissions:
    """Write instances.json and images/<video>/00000.*; the folder appears whole or not at all."""
    losses = Omissions()
    with new_folder(out) as root:
        tree: dict[str, list[Any]] = {"videos": [], "images": [], "annotations": []}
        for number, (name, video) in enumerate(zip(folder_names(videos), videos.videos, strict=True), start=1):
            losses.note_times(video)
            losses.note_scores(video.tracks or ())
            stored = store_frames(video, root / "images" / name) if frames else _expected(video)
            tree["videos"].append({"id": number, "name": name})
            first = len(tree["images"]) + 1
            tree["images"] += [
                {
                    "id": first + t,
                    "video_id": number,
                    "frame_id": t,
                    "file_name": f"{name}/{file}",
                    "height": video.size[0],
                    "width": video.size[1],
                }
                for t, file in enumerate(stored)
            ]
            for annotation in _annotations(video):
                annotation["id"] = len(tree["annotations"]) + 1
                annotation["image_id"] += first
                tree["annotations"].append({**annotation, "video_id": number})
        tree["categories"] = [{"id": n, "name": name} for n, name in enumerate(videos.classes, start=1)]
        (root / "instances.json").write_text(to_json(tree), encoding="utf-8")
    return losses


class _Videos(LazyVideos[_Entry]):
    def __init__(self, entries: Sequence[_Entry], path: str, files: Files, labels: dict[Id, int]) -> None:
        super().__init__(entries)
        self.path, self.files, self.labels = path, files, labels

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
        columns: dict[int, list[masks.RLE | None]] = {}
        kinds: dict[int, tuple[int, bool]] = {}
        for t, image in enumerate(entry.images):
            for annotation in entry.objects.get(image.id, ()):
                here = f"{where}, frame {t}: annotation {annotation.id}"
                number = annotation.instance_id if annotation.track_id is None else annotation.track_id
                if number is None:
                    raise FormatError(f"{here}: expected a track_id")
                kind = label_of(annotation, self.labels, here), bool(annotation.iscrowd)
                if kinds.setdefault(number, kind) != kind:
                    raise FormatError(f"{here}: track {number} is of another class than before")
                column = columns.setdefault(number, [None] * len(entry.images))
                if column[t] is not None:
                    raise FormatError(f"{here}: track {number} is in this frame already")
                column[t] = annotation.mask(size, here)
        for number, column in sorted(columns.items()):
            label, crowd = kinds[number]
            yield Track(id=number, label=label, score=1.0, rles=tuple(column), ignore=crowd)


def _entries(document: CocoDocument) -> list[_Entry]:
    names = {video.id: video.name or str(video.id) for video in document.videos}
    grouped: dict[Id, _Entry] = {}
    home: dict[Id, _Entry] = {}
    for image in document.images:
        folder = str(PurePosixPath(image.file_name.replace("\\", "/")).parent)
        key = folder if image.video_id is None else image.video_id
        home[image.id] = grouped.setdefault(key, _Entry(names.get(key, str(key))))
        home[image.id].images.append(image)
    for annotation in document.annotations:
        home[annotation.image_id].objects[annotation.image_id].append(annotation)
    for entry in grouped.values():
        entry.images.sort(key=lambda image: (image.frame_id, image.file_name.replace("\\", "/")))
    return list(grouped.values())


def _annotations(video: Video) -> Iterator[dict[str, Any]]:
    """One per object and frame; image_id is the number of the frame still."""
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


def _expected(video: Video) -> list[str]:
    return [f"{t:05d}.jpg" for t in range(len(video))]
