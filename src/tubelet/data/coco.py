"""COCO instance annotations as one-frame videos, which `Repeat` and `PseudoMotion` turn into pseudo-videos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.types import Track, Video, VideoSet
from tubelet.data.files import Files, StoredFrames, check_size, clean_name, integer, open_files, read_json
from tubelet.data.lazy import LazyVideos

PARTS = ("images", "annotations", "categories")


def read(annotations: str | Path, images: str | Path | None = None, *, keep: Collection[int] | None = None) -> VideoSet:
    """A COCO-form file as one one-frame video per image, classes in the order of category id.

    `images` is the folder or zip archive of the image files, by default `images` beside the JSON; `keep` chooses image
    ids, in the file's order. Crowds are ignored tracks. Segmentations stay as the file holds them until their video is
    asked for. Raises InputError for a missing file or an unknown id in `keep`, FormatError for a file of another form.
    """
    path = Path(annotations)
    tree = read_json(path)
    if not isinstance(tree, dict) or any(not isinstance(tree.get(part), list) for part in PARTS):
        raise FormatError(f"{path}: expected COCO's form, an object with the lists {', '.join(PARTS)}")
    files = open_files(path.parent / "images" if images is None else images)
    try:
        classes, labels = labels_of(tree["categories"])
        chosen = _choose({image["id"]: image for image in tree["images"]}, keep, path)
        objects = defaultdict(list)
        for annotation in tree["annotations"]:
            objects[annotation["image_id"]].append(annotation)
        entries = [(image, objects.get(image["id"], [])) for image in chosen]
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path}: expected COCO's form, {type(error).__name__} at {error}") from None
    return VideoSet(videos=_Images(entries, str(path), files, labels), classes=classes)


def labels_of(categories: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names in the order of category id, and the label of each id; ids need not follow each other."""
    ordered = sorted(categories, key=lambda category: category["id"])
    labels = {category["id"]: label for label, category in enumerate(ordered)}
    return tuple(str(category["name"]) for category in ordered), labels


def label_of(annotation: dict[str, Any], labels: dict[int, int], where: str) -> int:
    """The label of an annotation's category_id; raises FormatError, which names `where`, for an unknown one."""
    number = annotation.get("category_id")
    label = labels.get(number) if isinstance(number, int) else None
    if label is None:
        raise FormatError(f"{where}: no category has the id {number!r}")
    return label


Entry = tuple[dict[str, Any], Sequence[dict[str, Any]]]  # an image and the annotations in it


class _Images(LazyVideos[Entry]):
    def __init__(self, entries: Sequence[Entry], path: str, files: Files, labels: dict[int, int]) -> None:
        super().__init__(entries)
        self.path, self.files, self.labels = path, files, labels

    def make(self, entry: Entry) -> Video:
        image, annotations = entry
        where = f"{self.path}: image {image['id']}"
        size = check_size(image.get("height"), image.get("width"), where)
        name = clean_name(image.get("file_name"), where)
        tracks = tuple(self._track(annotation, size, where) for annotation in annotations)
        return Video(id=str(image["id"]), size=size, frames=StoredFrames(self.files, (name,), size), tracks=tracks)

    def _track(self, annotation: dict[str, Any], size: tuple[int, int], where: str) -> Track:
        where = f"{where}: annotation {annotation.get('id')}"
        number = integer(annotation.get("id"), f"{where}: id")
        mask = masks.from_json(annotation.get("segmentation"), size, where)
        crowd = bool(annotation.get("iscrowd", 0))
        return Track(id=number, label=label_of(annotation, self.labels, where), score=1.0, rles=(mask,), ignore=crowd)


def _choose(images: dict[int, dict[str, Any]], keep: Collection[int] | None, path: Path) -> list[dict[str, Any]]:
    if keep is None:
        return list(images.values())
    wanted = set(keep)
    if unknown := wanted - images.keys():
        raise InputError(f"{path}: no image has the id {min(unknown)} ({len(unknown)} unknown ids to keep)")
    return [image for number, image in images.items() if number in wanted]
