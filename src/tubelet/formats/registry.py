"""The formats of data sets, by name: detect, read, write and convert."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tubelet.core.arguments import short
from tubelet.core.atomic import new_folder
from tubelet.core.errors import ConfigError, FormatError, InputError, nearest
from tubelet.core.types import VideoSet
from tubelet.core.untrusted.files import as_path, exists
from tubelet.formats import coco, cvat, davis, label_studio, labelme, mask_folders, mots, sav, sbd, voc, yolo, ytvis
from tubelet.formats.coco import videos as coco_video
from tubelet.formats.detection import annotation_files, form_of
from tubelet.formats.files import FormatWarning, open_files
from tubelet.formats.storing import Omissions, folder_names, store_frames
from tubelet.formats.ytvis.document import Faults
from tubelet.formats.ytvis.numbering import Frames

__all__ = ["FORMS", "Form", "convert", "detect", "named", "open_set"]


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
    form = form_of(path)
    if form is None:
        raise FormatError(f"{path}: cannot tell which form this is; name it, one of {', '.join(FORMS)}")
    return form


def _json_of(path: Path) -> Path:
    """The JSON file itself, for a path to it, its folder or its archive."""
    if path.suffix.lower() != ".zip" and not path.is_dir():
        return path

    files = open_files(path)
    documents = annotation_files(files)
    if not documents:
        raise InputError(f"{path}: expected one JSON file at its top, such as instances.json")
    if len(documents) > 1:
        what = f"{documents[0]} is read; {', '.join(documents[1:])} by its own path"
        warnings.warn(f"{files}: of its splits, {what}", FormatWarning, stacklevel=4)
    return path / documents[0]


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
    "label-studio": Form("Label Studio's JSON", lambda path, frames: label_studio.read(path), None),
    "voc": Form("Pascal VOC's object maps, each image a video", lambda path, frames: voc.read(path), None),
    "sbd": Form("SBD, each image a video", lambda path, frames: sbd.read(path), None),
    "sav": Form("SA-V, the annotated frames", lambda path, frames: sav.read(path), None),
    "cvat": Form(
        "CVAT 1.1, for video and for images",
        lambda path, frames: cvat.read(path),
        lambda out, videos, frames: cvat.write(out, videos, frames=frames),
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
