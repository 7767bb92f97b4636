"""The JSON under COCO files. Masks stay raw bytes until asked for: COCO's own training file opens in seconds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.untrusted.documents import decode_json, decode_json_as
from tubelet.core.untrusted.files import mapped

Whole = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]  # what arrays hold
Id = Whole | str


class Image(msgspec.Struct, gc=False):
    """An image, of a video where it has a video_id."""

    id: Id
    file_name: str
    height: Whole
    width: Whole
    video_id: Id | None = None
    frame_id: Whole = 0


class Annotation(msgspec.Struct, gc=False):
    """One object in one image."""

    image_id: Id
    category_id: Whole
    id: Whole | None = None
    track_id: Whole | None = None
    instance_id: Whole | None = None
    iscrowd: Whole | bool = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"null")

    def mask(self, size: tuple[int, int], where: str) -> masks.RLE | None:
        """The segmentation as run lengths of `size`; raises FormatError, which names `where`, where it is broken."""
        return masks.from_json(decode_json(self.segmentation, where), size, where)


class Named(msgspec.Struct):
    """A category or a video."""

    id: Id
    name: str = ""


class CocoDocument(msgspec.Struct):
    """A COCO file; whatever else it holds is skipped."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Named]
    videos: list[Named] = []

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of category id."""
        return tuple(category.name or str(category.id) for category in self._ordered)

    @property
    def labels(self) -> dict[Id, int]:
        """Category id -> label; ids need not follow each other."""
        return {category.id: label for label, category in enumerate(self._ordered)}

    @property
    def _ordered(self) -> list[Named]:
        return sorted(self.categories, key=lambda category: (str(type(category.id)), category.id))


def load(path: Path) -> CocoDocument:
    """Parse a file. Raises InputError where it is missing, FormatError where it is no JSON or of another form."""
    document: CocoDocument = decode_json_as(CocoDocument, mapped(path), str(path), complaint="expected COCO's form")
    known = {image.id for image in document.images}
    if len(known) < len(document.images):
        raise FormatError(f"{path}: two images have the same id")
    lost = next((a for a in document.annotations if a.image_id not in known), None)
    if lost is not None:
        raise FormatError(f"{path}: annotation {lost.id}: no image has the id {lost.image_id!r}")
    return document


def label_of(annotation: Annotation, labels: dict[Id, int], where: str) -> int:
    """The label of an annotation's category; raises FormatError, which names `where`, for an unknown one."""
    if annotation.category_id not in labels:
        raise FormatError(f"{where}: no category has the id {annotation.category_id!r}")
    return labels[annotation.category_id]


def chosen(images: Sequence[Image], keep: Collection[Id] | None, path: Path) -> list[Image]:
    """The images whose ids are in `keep`, in the file's order; raises InputError for an id that no image has."""
    if keep is None:
        return list(images)
    wanted = set(keep)
    if unknown := wanted - {image.id for image in images}:
        raise InputError(f"{path}: no image has the id {min(unknown, key=str)} ({len(unknown)} unknown ids to keep)")
    return [image for image in images if image.id in wanted]
