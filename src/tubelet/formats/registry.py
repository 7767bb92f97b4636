"""The forms that data sets come in, by name, and how to tell which one lies at a path."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tubelet.core.arguments import short
from tubelet.core.atomic import new_folder
from tubelet.core.errors import ConfigError, FormatError, InputError, nearest
from tubelet.core.types import VideoSet
from tubelet.core.untrusted.files import as_path, exists, opened
from tubelet.formats import coco, cvat, cvat_write, davis, mask_folders, mots, ytvis
from tubelet.formats.coco import videos as coco_video
from tubelet.formats.files import Files, open_files
from tubelet.formats.storing import Omissions, folder_names, store_frames
from tubelet.formats.ytvis.document import Faults
from tubelet.formats.ytvis.numbering import Frames


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write down a data set."""

    title: str
    read: Callable[[Path, Path | None], VideoSet]  # annotations, and frames where they lie elsewhere
    write: Callable[[Path, VideoSet, bool], Omissions] | None  # the last says whether frames are written too


def open_set(
    path: str | Path, form: str | None = None, frames: str | Path | None = None, faults: Faults | None = None
) -> VideoSet:
    """The data set at a path, whose form is found out where it is not named.

    With lenient `faults`, broken annotations of a YouTube-VIS file are left out and counted there. Raises InputError
    for a missing path, FormatError for one whose form cannot be told, ConfigError for a name that is no form.
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
    """A form by name; raises ConfigError, which names the nearest, for one that is not there."""
    if not isinstance(form, str) or form not in FORMS:
        raise ConfigError(f"no form {short(form)}; {nearest(str(form), FORMS)}")
    return FORMS[form]


def detect(path: Path) -> str:
    """The name of the form at a path, by its file names and the top of its JSON."""
    if path.suffix.lower() == ".json":
        return _of_json(path)
    if path.suffix.lower() == ".xml":
        return "cvat"
    files = open_files(path)
    found = _of_names(files)
    if found is None and (document := _document(files)) is not None:
        found = _of_json(path / document)
    if found is None:
        known = ", ".join(FORMS)
        raise FormatError(f"{path}: cannot tell which form this is; name it, one of {known}")
    return found


def _of_names(files: Files) -> str | None:
    paths = [PurePosixPath(name) for name in files.names[:20000]]
    folders = {part for path in paths for part in path.parts[:-1]}
    names = {path.name for path in paths}
    if "annotations.xml" in names or any(path.suffix.lower() == ".zip" for path in paths):
        return "cvat"
    if "JPEGImages" in folders and folders & {"Annotations", "Annotations_unsupervised", "ImageSets"}:
        return "davis"
    if "instances_txt" in folders or "gt.txt" in names:
        return "mots"
    if "instances" in folders and not any(path.suffix == ".json" for path in paths):
        return "mots-png"
    if {"frames", "masks"} <= folders:
        return "png"
    return None


def _document(files: Files) -> str | None:
    """The annotation file at the top of a folder."""
    tops = [name for name in files.names if name.endswith(".json") and "/" not in name]
    liked = [name for name in tops if name in ("instances.json", "annotations.json", "train.json")]
    return liked[0] if liked else tops[0] if len(tops) == 1 else None


def _of_json(path: Path) -> str:
    """YouTube-VIS has a list of videos with file_names; COCO a list of images, with tracks or without."""
    if not path.is_file():
        raise InputError(f"{path}: expected a JSON file (an archive's must be unpacked; its frames need not)")
    with opened(path) as file:
        head = file.read(1 << 20).decode("utf-8", errors="replace")
        file.seek(max(0, path.stat().st_size - (1 << 20)))
        text = head + file.read().decode("utf-8", errors="replace")
    if re.search(r'"segmentations"\s*:|"file_names"\s*:', text):
        return "ytvis"
    if re.search(r'"track_id"\s*:|"instance_id"\s*:', text):
        return "coco-video"
    if re.search(r'"images"\s*:', text):
        return "coco"
    raise FormatError(f"{path}: neither YouTube-VIS nor COCO")


def _json_of(path: Path) -> Path:
    """The JSON itself, for a path to it or to its folder."""
    document = _document(open_files(path)) if path.is_dir() else ""
    if document is None:
        raise InputError(f"{path}: expected one JSON file in this folder, such as instances.json")
    return path / document if path.is_dir() else path


def _write_ytvis(out: Path, videos: VideoSet, frames: bool) -> Omissions:
    losses = Omissions()
    with new_folder(out) as root:
        written = []
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            losses.note_times(video)
            losses.note_scores(video.tracks or ())
            place = root / "JPEGImages"
            files = store_frames(video, place / name) if frames else [f"{t:05d}.jpg" for t in range(len(video))]
            stored = Frames((place,), tuple(f"{name}/{file}" for file in files), video.size, str(out))
            written.append(replace(video, frames=stored))
        ytvis.write_set(root / "instances.json", replace(videos, videos=written))
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
    """Read a data set and write it in another form; returns what that form could not hold.

    Frames that are files are copied as they are. Raises ConfigError for a form that is only read.
    """
    target = named(to)
    if target.write is None:
        raise ConfigError(f"the form {to!r} is only read; one of {', '.join(n for n, f in FORMS.items() if f.write)}")
    return target.write(Path(out), open_set(source, form), frames)
