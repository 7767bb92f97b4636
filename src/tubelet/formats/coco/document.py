"""The JSON of COCO files. Masks stay raw bytes until needed, so COCO's own training file opens in seconds."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.untrusted.archives import read_anywhere
from tubelet.core.untrusted.documents import decode_json, decode_json_as
from tubelet.formats.files import FormatWarning

Whole = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]  # of int64 arrays
Id = Whole | str


class Image(msgspec.Struct, gc=False):
    """One image, or one frame of a video if it has a video_id.

    Example:
        >>> from tubelet.formats.coco.document import Image
        >>> Image(id=1, file_name="dog.jpg", height=4, width=6).video_id is None
        True
    """

    id: Id
    file_name: str
    height: Whole
    width: Whole
    video_id: Id | None = None
    frame_id: Whole = 0


class Annotation(msgspec.Struct, gc=False):
    """One object in one image; `load` makes numbers of ids that are text.

    Example:
        >>> import msgspec
        >>> from tubelet.formats.coco.document import Annotation
        >>> raw = msgspec.Raw(b'{"size": [4, 6], "counts": "0h0"}')
        >>> Annotation(image_id=1, category_id=2, segmentation=raw).mask((4, 6), "train.json")
        RLE(size=(4, 6), counts=b'0h0')
    """

    image_id: Id
    category_id: Id
    id: Id | None = None
    track_id: Id | None = None
    instance_id: Id | None = None
    iscrowd: Whole | bool = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def number(self) -> int | None:
        """Its id, once `load` has made a number of it."""
        return self.id if isinstance(self.id, int) else None

    @property
    def track(self) -> int | None:
        """Its track_id or instance_id, likewise."""
        track = self.instance_id if self.track_id is None else self.track_id
        return track if isinstance(track, int) else None

    def mask(self, size: tuple[int, int], where: str) -> masks.RLE | None:
        """Parse the segmentation, for an image of (height, width); FormatError names `where` if it is invalid."""
        return masks.from_json(decode_json(self.segmentation, where), size, where)


class Named(msgspec.Struct, repr_omit_defaults=True):
    """A category or a video.

    Example:
        >>> from tubelet.formats.coco.document import Named
        >>> Named(id=1, name="dog")
        Named(id=1, name='dog')
    """

    id: Id
    name: str = ""
    supercategory: Any = None


class CocoDocument(msgspec.Struct):
    """A parsed COCO file; other fields of the file are ignored.

    Example:
        >>> from tubelet.formats.coco.document import CocoDocument, Named
        >>> categories = [Named(id=7, name="cat"), Named(id=2, name="dog")]
        >>> document = CocoDocument(images=[], annotations=[], categories=categories)
        >>> document.classes, document.labels
        (('dog', 'cat'), {2: 0, 7: 1})
    """

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Named]
    videos: list[Named] = []

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted by category id."""
        return tuple(category.name or str(category.id) for category in self._ordered)

    @property
    def labels(self) -> dict[Id, int]:
        """Category id -> position in `classes`; ids may have gaps."""
        return {category.id: label for label, category in enumerate(self._ordered)}

    @property
    def _ordered(self) -> list[Named]:
        return sorted(self.categories, key=lambda category: (str(type(category.id)), category.id))


def load(path: Path) -> CocoDocument:
    """Parse a file.

    Raises InputError if it is missing, FormatError if it is not JSON, not of this format, if two
    images have the same id or if an annotation's image is missing.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.coco.document import load
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.json")
        ...     _ = path.write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "dog"}]}')
        ...     load(path).classes
        ('dog',)
    """
    document: CocoDocument = decode_json_as(
        CocoDocument, read_anywhere(path), str(path), complaint="expected COCO's form"
    )
    _number_ids(document)
    image_ids = {image.id for image in document.images}
    if len(image_ids) < len(document.images):
        raise FormatError(f"{path}: two images have the same id")
    if len({category.id for category in document.categories}) < len(document.categories):
        raise FormatError(f"{path}: two categories have the same id")

    for annotation in document.annotations:
        if annotation.image_id not in image_ids:
            raise FormatError(f"{path}: annotation {annotation.id}: no image has the id {annotation.image_id!r}")
    return _without_root(document, path)


def _number_ids(document: CocoDocument) -> None:
    """Make numbers of ids that are text. "7" is 7; other texts of objects are numbered, above the numbers there are."""
    for image in document.images:
        image.id = _as_number(image.id)
        image.video_id = None if image.video_id is None else _as_number(image.video_id)
    for named in (*document.videos, *document.categories):
        named.id = _as_number(named.id)

    objects = _Numbers(annotation.id for annotation in document.annotations)
    tracks = _Numbers(id for annotation in document.annotations for id in (annotation.track_id, annotation.instance_id))
    for annotation in document.annotations:
        annotation.image_id = _as_number(annotation.image_id)
        annotation.category_id = _as_number(annotation.category_id)
        annotation.id = objects.of(annotation.id)
        annotation.track_id = tracks.of(annotation.track_id)
        annotation.instance_id = tracks.of(annotation.instance_id)


class _Numbers:
    """A number for each id."""

    def __init__(self, ids: Iterable[Id | None]) -> None:
        numbers = (None if id is None else _as_number(id) for id in ids)
        self._next = max((number for number in numbers if isinstance(number, int)), default=0) + 1
        self._of_texts: dict[str, int] = {}

    def of(self, id: Id | None) -> int | None:
        number = None if id is None else _as_number(id)
        if not isinstance(number, str):
            return number
        return self._of_texts.setdefault(number, self._next + len(self._of_texts))


def _as_number(id: Id) -> Id:
    is_number = isinstance(id, str) and len(id) < 19 and re.fullmatch(r"0|[1-9][0-9]*", id)
    return int(id) if is_number else id


def _without_root(document: CocoDocument, path: Path) -> CocoDocument:
    """Leave out the category 0 of Roboflow's exports, which only names the others' supercategory and has no object."""
    root = next((category for category in document.categories if category.id == 0), None)
    others = [category for category in document.categories if category is not root]
    is_root = root is not None and others and all(other.supercategory == root.name for other in others)
    if root is None or not is_root or any(annotation.category_id == 0 for annotation in document.annotations):
        return document
    what = f"category 0, {root.name!r}, names the others' supercategory and has no object; it is left out"
    warnings.warn(f"{path}: {what}", FormatWarning, stacklevel=3)
    return replace(document, categories=others)


def label_of(annotation: Annotation, labels: dict[Id, int], where: str) -> int:
    """Return the label of an annotation's category.

    Raises FormatError, which names `where`, if the file does not list the category.

    Example:
        >>> from tubelet.formats.coco.document import Annotation, label_of
        >>> label_of(Annotation(image_id=1, category_id=7), {2: 0, 7: 1}, "train.json")
        1
    """
    if annotation.category_id not in labels:
        raise FormatError(f"{where}: no category has the id {annotation.category_id!r}")
    return labels[annotation.category_id]


def chosen(images: Sequence[Image], keep: Collection[Id] | None, path: Path) -> list[Image]:
    """Return the images whose ids are in `keep`, or all if it is None, in the order of the file.

    Raises InputError if no image has one of the ids.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.formats.coco.document import Image, chosen
        >>> images = [Image(id=n, file_name=f"{n}.jpg", height=4, width=6) for n in range(3)]
        >>> [image.id for image in chosen(images, keep=[2, 0], path=Path("train.json"))]
        [0, 2]
    """
    if keep is None:
        return list(images)

    ids = set(keep)
    unknown = ids - {image.id for image in images}
    if unknown:
        raise InputError(f"{path}: no image has the id {min(unknown, key=str)} ({len(unknown)} unknown ids to keep)")
    return [image for image in images if image.id in ids]
