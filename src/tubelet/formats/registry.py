"""The formats of data sets, by name: detect, read, write and convert."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tubelet.core.arguments import short
from tubelet.core.atomic import new_folder
from tubelet.core.errors import ConfigError, FormatError, InputError, nearest
from tubelet.core.types import VideoSet
from tubelet.core.untrusted.archives import read_anywhere
from tubelet.core.untrusted.files import as_path, decode_text, exists
from tubelet.formats import coco, cvat, cvat_write, davis, labelme, mask_folders, mots, yolo, ytvis
from tubelet.formats.coco import videos as coco_video
from tubelet.formats.files import Files, open_files
from tubelet.formats.storing import Omissions, folder_names, store_frames
from tubelet.formats.ytvis.document import Faults
from tubelet.formats.ytvis.numbering import Frames

USUAL = ("instances.json", "annotations.json", "train.json")  # names of annotation files
PROBED = 1 << 20  # bytes at both ends of a JSON file that are looked at to tell its format


@dataclass(frozen=True, slots=True)
class Form:
    """One format of data sets.

    Example:
        >>> from tubelet.formats.registry import named
        >>> named("davis").title
        'DAVIS label maps'
    """

    title: str
    read: Callable[[Path, Path | None], VideoSet]  # (annotations, frames if they are elsewhere)
    write: Callable[[Path, VideoSet, bool], Omissions] | None  # (folder, set, whether to write frames)


def open_set(
    path: str | Path, form: str | None = None, frames: str | Path | None = None, faults: Faults | None = None
) -> VideoSet:
    """Read the data set at a path.

    Args:
        path: A file, folder or archive.
        form: Name of the format; detected by default.
        frames: Folder or archive of the frames, if they are not beside the annotations.
        faults: If lenient, invalid annotations of a YouTube-VIS file are left out and counted there.

    Raises:
        InputError: if the path does not exist.
        FormatError: if the format cannot be detected, or the data do not follow it.
        ConfigError: if there is no format of this name.

    Example:
        >>> import msgspec, tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.registry import open_set
        >>> video = {"id": 7, "width": 6, "height": 4, "file_names": ["dog/00000.jpg"]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "valid.json").write_bytes(msgspec.json.encode({"videos": [video]}))
        ...     open_set(folder).names
        ('dog',)
    """
    path = as_path(path, "a data set")
    if not exists(path):
        raise InputError(f"{path}: no such file or folder")

    form = detect(path) if form is None else form
    frames = None if frames is None else as_path(frames, "the frames")
    if form == "ytvis" and faults is not None:
        return ytvis.read(_json_of(path), frames, faults=faults)
    return named(form).read(path, frames)


def named(form: str) -> Form:
    """Return a format by name; ConfigError, which suggests the nearest name, if there is none.

    Example:
        >>> from tubelet.formats.registry import named
        >>> named("coco-video").title
        'COCO with track_id'
    """
    if not isinstance(form, str) or form not in FORMS:
        raise ConfigError(f"no form {short(form)}; {nearest(str(form), FORMS)}")
    return FORMS[form]


def detect(path: Path) -> str:
    """Return the name of the format at a path, from its file names and the top of its JSON.

    Raises FormatError if it cannot be detected.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.registry import detect
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "train.json").write_text('{"videos": [{"id": 1, "file_names": []}]}')
        ...     detect(Path(folder))
        'ytvis'
    """
    if path.suffix.lower() == ".json":
        return _detect_json(path)
    if path.suffix.lower() == ".xml":
        return "cvat"

    files = open_files(path)
    form = _detect_names(files)
    document = _document(files)
    if form is None and document is not None:
        form = _detect_json(path / document)
    if form is None and path.is_dir() and any(name.endswith(".json") for name in files.names):
        form = _labelme_or_none(files)
    if form is None:
        known = ", ".join(FORMS)
        raise FormatError(f"{path}: cannot tell which form this is; name it, one of {known}")
    return form


def _detect_names(files: Files) -> str | None:
    """The format with such file and folder names, if there is one."""
    paths = [PurePosixPath(name) for name in files.names[:20000]]
    folders = {part for path in paths for part in path.parts[:-1]}
    names = {path.name for path in paths}
    suffixes = {path.suffix for path in paths}

    if "annotations.xml" in names or ".zip" in {suffix.lower() for suffix in suffixes}:
        return "cvat"
    if "JPEGImages" in folders and folders & {"Annotations", "Annotations_unsupervised", "ImageSets"}:
        return "davis"
    if "instances_txt" in folders or "gt.txt" in names:
        return "mots"
    if "instances" in folders and ".json" not in suffixes:
        return "mots-png"
    if {"frames", "masks"} <= folders:
        return "png"
    if {"images", "labels"} <= folders and suffixes & {".txt"} and ".json" not in suffixes:
        return "yolo-seg"
    return None


def _labelme_or_none(files: Files) -> str | None:
    """labelme has a JSON file beside each image; one of them tells."""
    name = next(name for name in files.names if name.endswith(".json"))
    is_labelme = re.search(r'"shapes"\s*:', decode_text(files.read(name), files.where(name)))
    return "labelme" if is_labelme else None


def _document(files: Files) -> str | None:
    """The annotation file of a folder.

    At the top one with a usual name, else the only JSON file there; else that of COCO's tree (annotations/) or of
    Roboflow's (train/_annotations.coco.json): of several splits, the training one. Where everything is in one folder,
    as archives often have it, its top is meant.
    """
    folder = _only_folder(files.names)
    documents = {name.removeprefix(folder): name for name in files.names if name.endswith(".json")}
    top = [name for name in documents if "/" not in name]
    usual = [name for name in top if name in USUAL]
    if usual or len(top) == 1:
        return documents[(usual or top)[0]]

    others = r"(?!captions|person_keypoints|panoptic|stuff|image_info)"  # what COCO keeps beside its instances
    in_tree = [name for name in documents if re.fullmatch(rf"annotations/{others}[^/]*\.json", name)]
    roboflow = [name for name in documents if name.endswith("_annotations.coco.json")]
    for names in (in_tree, roboflow):
        training = [name for name in names if "train" in name]
        if len(training) == 1 or len(names) == 1:
            return documents[(training or names)[0]]
    return None


def _only_folder(names: Sequence[str]) -> str:
    """The folder that has all files, with a slash; empty if there is none."""
    first = names[0].partition("/") if names else ("", "", "")
    folder = first[0] + first[1]
    return folder if first[1] and all(name.startswith(folder) for name in names) else ""


def _detect_json(path: Path) -> str:
    """The format of a JSON file: YouTube-VIS has videos with file_names, COCO has images."""
    data = read_anywhere(path)
    text = "".join(bytes(part).decode("utf-8", errors="replace") for part in (data[:PROBED], data[-PROBED:]))

    if re.search(r'"segmentations"\s*:|"file_names"\s*:', text):
        return "ytvis"
    if re.search(r'"track_id"\s*:|"instance_id"\s*:', text):
        return "coco-video"
    if re.search(r'"images"\s*:', text):
        return "coco"
    if re.search(r'"shapes"\s*:', text):
        return "labelme"
    raise FormatError(f"{path}: neither YouTube-VIS nor COCO")


def _json_of(path: Path) -> Path:
    """The JSON file itself, for a path to it, its folder or its archive."""
    if path.suffix.lower() != ".zip" and not path.is_dir():
        return path

    document = _document(open_files(path))
    if document is None:
        raise InputError(f"{path}: expected one JSON file at its top, such as instances.json")
    return path / document


def _write_ytvis(out: Path, videos: VideoSet, frames: bool) -> Omissions:
    losses = Omissions()
    with new_folder(out) as root:
        images = root / "JPEGImages"
        with_files = []
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            losses.note_times(video)
            losses.note_scores(video.tracks or ())
            files = store_frames(video, images / name) if frames else [f"{t:05d}.jpg" for t in range(len(video))]
            stored = Frames((images,), tuple(f"{name}/{file}" for file in files), video.size, str(out))
            with_files.append(replace(video, frames=stored))

        ytvis.write_set(root / "instances.json", replace(videos, videos=with_files))
    return losses


FORMS: dict[str, Form] = {
    "ytvis": Form("YouTube-VIS and OVIS", lambda path, frames: ytvis.read(_json_of(path), frames), _write_ytvis),
    "davis": Form(
        "DAVIS label maps",
        lambda path, frames: davis.read(path),
        lambda out, videos, frames: davis.write(out, videos, frames=frames),
    ),
    "mots": Form(
        "MOTS text",
        lambda path, frames: mots.read(path, frames),
        lambda out, videos, frames: mots.write(out, videos, text=True, frames=frames),
    ),
    "mots-png": Form(
        "MOTS 16-bit PNG",
        lambda path, frames: mots.read(path, frames),
        lambda out, videos, frames: mots.write(out, videos, text=False, frames=frames),
    ),
    "coco-video": Form(
        "COCO with track_id",
        lambda path, frames: coco_video.read(_json_of(path), frames),
        lambda out, videos, frames: coco_video.write(out, videos, frames=frames),
    ),
    "coco": Form("COCO images, each a video", lambda path, frames: coco.read(_json_of(path), frames), None),
    "yolo-seg": Form(
        "YOLO polygons, each image a video",
        lambda path, frames: yolo.read(path),
        lambda out, videos, frames: yolo.write(out, videos, frames=frames),
    ),
    "labelme": Form(
        "labelme, group_id as identity",
        lambda path, frames: labelme.read(path),
        lambda out, videos, frames: labelme.write(out, videos, frames=frames),
    ),
    "cvat": Form(
        "CVAT for video 1.1",
        lambda path, frames: cvat.read(path),
        lambda out, videos, frames: cvat_write.write(out, videos, frames=frames),
    ),
    "png": Form(
        "plain PNG folders",
        lambda path, frames: mask_folders.read(path),
        lambda out, videos, frames: mask_folders.write(out, videos, frames=frames),
    ),
}


def convert(source: str | Path, out: str | Path, *, to: str, form: str | None = None, frames: bool = True) -> Omissions:
    """Read a data set and write it in another format.

    Args:
        source: The data set.
        out: The new folder.
        to: Name of the format to write; raises ConfigError if it can only be read.
        form: Name of the format to read; detected by default.
        frames: Whether to write frames too. Those that are image files are copied unchanged.

    Returns:
        What the format cannot hold.

    Example:
        >>> import msgspec, tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.registry import convert, detect
        >>> video = {"id": 7, "width": 6, "height": 4, "file_names": ["dog/00000.jpg"]}
        >>> document = {"videos": [video], "categories": [], "annotations": []}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "train.json").write_bytes(msgspec.json.encode(document))
        ...     losses = convert(folder, Path(folder, "out"), to="cvat", frames=False)
        ...     detect(Path(folder, "out")), losses.lines()
        ('cvat', [])
    """
    _writer(to)  # complain before the source is read
    return write_set(out, open_set(source, form), to=to, frames=frames)


def write_set(out: str | Path, videos: VideoSet, *, to: str, frames: bool = True) -> Omissions:
    """Write a data set into a new folder.

    Args:
        out: The new folder.
        videos: The set.
        to: Name of the format; raises ConfigError if it can only be read.
        frames: Whether to write frames too.

    Returns:
        What the format cannot hold.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats.registry import write_set
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[torch.zeros(3, 4, 6, dtype=torch.uint8)], tracks=())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_set(Path(folder, "out"), VideoSet(videos=[video], classes=("dog",)), to="cvat").lines()
        []
    """
    return _writer(to)(Path(out), videos, frames)


def _writer(to: str) -> Callable[[Path, VideoSet, bool], Omissions]:
    """What writes a format. Raises ConfigError if it can only be read."""
    write = named(to).write
    if write is None:
        writable = [name for name, known in FORMS.items() if known.write]
        raise ConfigError(f"the form {to!r} is only read; one of {', '.join(writable)}")
    return write
