"""COCO instance annotations as one-frame videos, which `Repeat` and `PseudoMotion` turn into pseudo-videos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats.coco.document import Annotation, Id, Image, chosen, label_of, load
from tubelet.formats.files import Files, StoredFrames, check_size, clean_name, open_files
from tubelet.formats.lazy import LazyVideos

Entry = tuple[Image, Sequence[Annotation]]


def read(annotations: str | Path, images: str | Path | None = None, *, keep: Collection[Id] | None = None) -> VideoSet:
    """A COCO-form file as one one-frame video per image, classes in the order of category id.

    `images` is the folder or zip archive of the image files, by default `images` beside the JSON; `keep` chooses image
    ids, in the file's order. Crowds are ignored tracks. Segmentations stay as the file holds them until their video is
    asked for. Raises InputError for a missing file or an unknown id in `keep`, FormatError for a file of another form.
    """
    path = Path(annotations)
    document = load(path)
    objects: dict[Id, list[Annotation]] = defaultdict(list)
    for annotation in document.annotations:
        objects[annotation.image_id].append(annotation)
    entries = [(image, objects.get(image.id, ())) for image in chosen(document.images, keep, path)]
    files = open_files(path.parent / "images" if images is None else images)
    return VideoSet(videos=_Images(entries, str(path), files, document.labels), classes=document.classes)


class _Images(LazyVideos[Entry]):
    def __init__(self, entries: Sequence[Entry], path: str, files: Files, labels: dict[Id, int]) -> None:
        super().__init__(entries)
        self.path, self.files, self.labels = path, files, labels

    def make(self, entry: Entry) -> Video:
        image, annotations = entry
        where = f"{self.path}: image {image.id}"
        size = check_size(image.height, image.width, where)
        frames = StoredFrames(self.files, (clean_name(image.file_name, where),), size)
        tracks = tuple(self._track(annotation, n, size, where) for n, annotation in enumerate(annotations, start=1))
        return Video(id=str(image.id), size=size, frames=frames, tracks=tracks)

    def _track(self, annotation: Annotation, place: int, size: tuple[int, int], where: str) -> Track:
        number = place if annotation.id is None else annotation.id
        where = f"{where}: annotation {number}"
        return Track(
            id=number,
            label=label_of(annotation, self.labels, where),
            score=1.0,
            rles=(annotation.mask(size, where),),
            ignore=bool(annotation.iscrowd),
        )
