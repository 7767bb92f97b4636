"""Tell which format a data set has, from its file names and the top of its JSON."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from tubelet.core.errors import FormatError
from tubelet.core.untrusted.archives import read_anywhere
from tubelet.core.untrusted.files import decode_text
from tubelet.formats import frame_lines, frame_lines_reading, yolo
from tubelet.formats.files import Files, open_files

USUAL = ("instances.json", "annotations.json", "train.json")  # names of annotation files
PROBED = 1 << 20  # bytes at both ends of a JSON file that are looked at to tell its format


def form_of(path: Path) -> str | None:
    """Return the name of the format at a path; None if it cannot be told.

    Raises FormatError for a JSON file of no known format.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.detection import form_of
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "train.json").write_text('{"videos": [{"id": 1, "file_names": []}]}')
        ...     form_of(Path(folder))
        'ytvis'
    """
    suffix = path.suffix.lower()
    if suffix in (".json", frame_lines.SUFFIX):
        return _of_json(path)
    if suffix == ".xml":
        return "cvat"
    if suffix in (".yaml", ".yml") or yolo.is_images_of_split(path):
        return "yolo-seg"

    files = open_files(path)
    form = _of_names(files)
    documents = annotation_files(files)
    if form is None and documents:
        form = _of_json(path / documents[0])
    if form is None and path.is_dir() and any(name.endswith(".json") for name in files.names):
        form = _labelme_or_none(files)
    return form


def annotation_files(files: Files) -> list[str]:
    """Return the annotation files of a folder, the one to read first.

    At the top one with a usual name, else the only JSON file there; else those of COCO's tree (annotations/) or of
    Roboflow's (train/_annotations.coco.json): the training one, and then the other splits. Where everything is in one
    folder, as archives often have it, its top is meant.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.detection import annotation_files
        >>> from tubelet.formats.files import open_files
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "annotations").mkdir()
        ...     for split in ("val", "train"):
        ...         _ = Path(folder, "annotations", f"instances_{split}2017.json").write_text("{}")
        ...     annotation_files(open_files(folder))
        ['annotations/instances_train2017.json', 'annotations/instances_val2017.json']
    """
    folder = _only_folder(files.names)
    documents = {name.removeprefix(folder): name for name in files.names if name.endswith(".json")}
    top = [name for name in documents if "/" not in name]
    usual = [name for name in USUAL if name in top]
    if usual or len(top) == 1:
        return [documents[(usual or top)[0]]]

    others = r"(?!captions|person_keypoints|panoptic|stuff|image_info)"  # what COCO keeps beside its instances
    in_tree = [name for name in documents if re.fullmatch(rf"annotations/{others}[^/]*\.json", name)]
    roboflow = [name for name in documents if name.endswith("_annotations.coco.json")]
    for names in (in_tree, roboflow):
        training = [name for name in names if "train" in name]
        if len(training) == 1 or len(names) == 1:
            first = (training or names)[0]
            return [documents[name] for name in sorted(names, key=lambda name: name != first)]
    return []


def _of_names(files: Files) -> str | None:
    """The format with such file and folder names, if there is one."""
    paths = [PurePosixPath(name) for name in files.names]
    folders = {part for folder in {path.parent for path in paths} for part in folder.parts}
    names = {path.name for path in paths}
    suffixes = {path.suffix.lower() for path in paths}

    if "annotations.xml" in names or ".zip" in suffixes:
        return "cvat"
    if {"JPEGImages", "SegmentationObject"} <= folders:
        return "voc"
    if "inst" in folders and ".mat" in suffixes:
        return "sbd"
    if "Annotations_6fps" in folders or _has_masklets(names):
        return "sav"
    if "JPEGImages" in folders and folders & {"Annotations", "Annotations_unsupervised", "ImageSets"}:
        return "davis"
    if "instances_txt" in folders or "gt.txt" in names:
        return "mots"
    if "instances" in folders and ".json" not in suffixes:
        return "mots-png"
    if {"frames", "masks"} <= folders:
        return "png"
    if {"images", "labels"} <= folders and ".txt" in suffixes and ".json" not in suffixes:
        return "yolo-seg"
    return None


def _has_masklets(names: Collection[str]) -> bool:
    """Whether there is a video with SA-V's JSON file."""
    videos = [name.removesuffix(".mp4") for name in names if name.endswith(".mp4")]
    return any(f"{video}{kind}.json" in names for video in videos for kind in ("_manual", "_auto"))


def _labelme_or_none(files: Files) -> str | None:
    """labelme has a JSON file beside each image; one of them tells."""
    name = next(name for name in files.names if name.endswith(".json"))
    is_labelme = re.search(r'"shapes"\s*:', decode_text(files.read(name), files.where(name)))
    return "labelme" if is_labelme else None


def _only_folder(names: Sequence[str]) -> str:
    """The folder that has all files, with a slash; empty if there is none, or if it is that of COCO's tree."""
    name, slash, _ = names[0].partition("/") if names else ("", "", "")
    folder = f"{name}/"
    is_only = slash and name != "annotations" and all(other.startswith(folder) for other in names)
    return folder if is_only else ""


def _of_json(path: Path) -> str:
    """The format of a JSON file: YouTube-VIS has videos with file_names, COCO has images."""
    data = read_anywhere(path)
    if frame_lines_reading.are_frame_lines(data):
        return "ytvis"
    text = "".join(bytes(part).decode("utf-8", errors="replace") for part in (data[:PROBED], data[-PROBED:]))

    if re.search(r'"segmentations"\s*:|"file_names"\s*:', text):
        return "ytvis"
    if re.search(r'"track_id"\s*:|"instance_id"\s*:', text):
        return "coco-video"
    if re.search(r'"images"\s*:', text):
        return "coco"
    if re.search(r'"shapes"\s*:', text):
        return "labelme"
    if re.search(r'"masklet"\s*:', text):
        return "sav"
    if re.search(r'"result"\s*:', text) and re.search(r'"data"\s*:', text):
        return "label-studio"
    raise FormatError(f"{path}: neither YouTube-VIS nor COCO nor labelme nor Label Studio")
