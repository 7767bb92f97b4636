"""Read COCO images as videos of one frame; `Repeat` and `PseudoMotion` make longer clips of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.files import is_file
from tubelet.formats.coco.document import Annotation, Id, Image, chosen, label_of, load
from tubelet.formats.files import Files, StoredFrames, check_size, clean_name, open_files
from tubelet.formats.lazy import LazyVideos

Entry = tuple[Image, Sequence[Annotation]]


def read(annotations: str | Path, images: str | Path | None = None, *, keep: Collection[Id] | None = None) -> VideoSet:
    """Read a COCO file: one video of one frame for each image, classes sorted by category id.

    A mask is parsed when its video is used. Crowds are tracks with `ignore`.

    Args:
        annotations: The JSON file.
        images: Folder or zip archive of the images; by default where they are: `images` beside the JSON, the JSON's own
            folder, or, as in COCO's own tree, images/train2017 or train2017 for annotations/instances_train2017.json.
        keep: Ids of the images to read, by default all; the order is that of the file.

    Raises:
        InputError: if the file is missing or no image has an id of `keep`.
        FormatError: if the file is not of this format.

    Example:
        >>> import msgspec, tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats import coco
        >>> image = {"id": 9, "file_name": "dog.jpg", "width": 6, "height": 4}
        >>> document = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "dog"}]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "images").mkdir()
        ...     _ = Path(folder, "train.json").write_bytes(msgspec.json.encode(document))
        ...     coco.read(Path(folder, "train.json")).videos[0]
        Video(id='9', size=(4, 6), frames=1, fps=25, tracks=0)
    """
    path = Path(annotations)
    document = load(path)
    by_image: dict[Id, list[Annotation]] = defaultdict(list)
    for annotation in document.annotations:
        by_image[annotation.image_id].append(annotation)

    entries = [(image, by_image.get(image.id, ())) for image in chosen(document.images, keep, path)]
    files = open_files(_folder_of_images(path, entries) if images is None else images)
    return VideoSet(videos=_Images(entries, str(path), files, document.labels), classes=document.classes)


def _folder_of_images(path: Path, entries: Sequence[Entry]) -> Path:
    """The first usual folder that has the first image; `images` beside the JSON if none has."""
    usual = path.parent / "images"
    if not entries:
        return usual

    split = path.stem.rpartition("_")[2]  # instances_train2017 -> train2017
    above = path.parent.parent
    name = clean_name(entries[0][0].file_name, str(path))
    for folder in (usual, path.parent, above / "images" / split, above / split, above / "images", usual / split):
        if is_file(folder / name):
            return folder
    return usual


class _Images(LazyVideos[Entry]):
    def __init__(self, entries: Sequence[Entry], path: str, files: Files, labels: dict[Id, int]) -> None:
        super().__init__(entries)
        self.path = path
        self.files = files
        self.labels = labels

    def make(self, entry: Entry) -> Video:
        image, annotations = entry
        where = f"{self.path}: image {image.id}"
        size = check_size(image.height, image.width, where)
        frames = StoredFrames(self.files, (clean_name(image.file_name, where),), size)
        tracks = tuple(self._track(annotation, n, size, where) for n, annotation in enumerate(annotations, start=1))
        return Video(id=str(image.id), size=size, frames=frames, tracks=tracks)

    def _track(self, annotation: Annotation, position: int, size: tuple[int, int], where: str) -> Track:
        track_id = position if annotation.number is None else annotation.number
        where = f"{where}: annotation {track_id}"
        return Track(
            id=track_id,
            label=label_of(annotation, self.labels, where),
            score=1.0,
            rles=(annotation.mask(size, where),),
            ignore=bool(annotation.iscrowd),
        )
