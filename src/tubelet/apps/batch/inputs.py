"""Find the videos that files, folders, globs and lists name, and give each a folder name of its own."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from tubelet.core import remote
from tubelet.core.errors import FormatError, InputError
from tubelet.core.remote import is_remote
from tubelet.core.untrusted.addresses import is_web_address
from tubelet.core.untrusted.files import check_file, exists, read_text
from tubelet.inference.many.batch import VideoJob
from tubelet.video.reader import IMAGE_SUFFIXES, LARGEST_VIDEO, VIDEO_SUFFIXES

LONGEST_NAME = 60


def find_jobs(inputs: Iterable[str], lists: Iterable[Path], out: Path | str) -> list[VideoJob]:
    """List every video once, sorted by folder name. Files in `out`, a folder or an address, are skipped.

    An input is a video, a folder of images (one video), a folder of videos (searched through), a glob with `**` for
    any depth, or @FILE, as in `lists`: a file with one input per line, where # begins a comment. A path in a list is
    accepted even if it does not exist: that video fails alone, and the others go on. Addresses, as s3://bucket/films,
    lead to videos alone, not to images. Raises InputError for any other input without a video.
    """
    found: dict[str, None] = {}
    for text in inputs:
        listed = text.startswith("@") and not Path(text).exists()
        for source in _lines(Path(text[1:])) if listed else _expand(text, out):
            found[_absolute(source)] = None
    for path in lists:
        for source in _lines(path):
            found[_absolute(source)] = None
    if not found:
        raise InputError("no videos to read: expected files, folders, globs or a list")
    return named(found)


def named(sources: Collection[Path] | Collection[str]) -> list[VideoJob]:
    """Name a folder after each file; files that would share a folder get a hash of their path or address appended.

    So a name depends on the file's path and on those it clashes with, not on the order of the inputs.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.apps.batch.inputs import named
        >>> [job.name for job in named([Path("/a/dog.mp4"), Path("/a/cat run.mp4")])]
        ['cat_run', 'dog']
    """
    plain = {path: _safe(Path(path)) for path in sources}
    hashed = {path: f"{name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:10]}" for path, name in plain.items()}
    taken = Counter(name.casefold() for name in plain.values())  # some file systems know no case
    clashing = {path for path, name in plain.items() if taken[name.casefold()] > 1}
    reserved = {hashed[path].casefold() for path in clashing}
    clashing |= {path for path, name in plain.items() if name.casefold() in reserved}
    names = {path: hashed[path] if path in clashing else plain[path] for path in sources}
    if len({name.casefold() for name in names.values()}) < len(names):
        raise InputError("two videos would have one folder: rename one of them")
    return sorted((VideoJob(str(path), name) for path, name in names.items()), key=lambda job: job.name)


def _safe(path: Path) -> str:
    """The file's name without its suffix; other characters than letters, digits, - and _ become _."""
    stem = path.name if path.is_dir() else path.stem
    return re.sub(r"[^\w-]+", "_", stem)[:LONGEST_NAME].lstrip("-") or "_"


def _lines(path: Path) -> Iterator[str]:
    try:
        text = read_text(path)
    except FormatError as error:
        raise InputError(f"{error}; a list has one video a line") from None
    for line in text.splitlines():
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        yield from _expand(entry, None) if _names_several(entry) else [entry]


def _names_several(entry: str) -> bool:
    if is_remote(entry):
        return not _is_video(entry) or remote.is_pattern(entry)
    return Path(entry).is_dir() or _is_pattern(entry)


def _expand(text: str, out: Path | str | None) -> Iterator[str]:
    path = Path(text)
    if is_web_address(text):
        raise InputError(f"{text}: an address is predicted by itself, `tubelet predict ADDRESS`")
    if is_remote(text):
        yield from _at_address(text, out)
        return
    if path.is_dir():
        yield from _inside(path, out)
    elif exists(path):
        check_file(path, largest=LARGEST_VIDEO)
        yield text
    elif _is_pattern(text):
        matches = sorted(glob.glob(text, recursive=True))
        found = [source for match in matches for source in _matched(Path(match), out)]
        if not found:
            raise InputError(f"{text}: no video of this pattern")
        taken = set(found)
        yield from (source for source in found if not (_is_image(source) and os.path.dirname(source) in taken))
    else:
        raise InputError(f"{text}: no such file or folder")


def _at_address(address: str, out: Path | str | None) -> Sequence[str]:
    """Videos of a remote file, folder or pattern."""
    videos = [found for found in remote.find(address) if _is_video(found) and not _within(found, out)]
    if not videos:
        raise InputError(f"{remote.shown(address)}: no video there")
    return videos


def _matched(path: Path, out: Path | str | None) -> Sequence[str]:
    """Videos of one match of a glob: a file that is no video gives none, a folder is searched."""
    if path.is_dir():
        return list(_searched(path, out))
    known = path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
    return [str(path)] if known and not _within(path, out) else []


def _inside(folder: Path, out: Path | str | None) -> Sequence[str]:
    found = list(_searched(folder, out))
    if not found:
        raise InputError(f"{folder}: neither videos nor folders of images in it")
    return found


def _searched(folder: Path, out: Path | str | None) -> Iterator[str]:
    """Videos at any depth; a folder with images and without videos is one video."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != "." and not _within(Path(place, name), out))
        if _within(Path(place), out):
            continue
        shown = sorted(name for name in files if name[0] != ".")
        videos = [name for name in shown if _is_video(name)]
        yield from (os.path.join(place, name) for name in videos)
        if not videos and any(map(_is_image, shown)):
            folders.clear()
            yield place


def _is_video(path: str) -> bool:
    return Path(path.partition("::")[0]).suffix.lower() in VIDEO_SUFFIXES


def _is_image(path: str) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def _within(path: Path | str, out: Path | str | None) -> bool:
    """Whether a path is in the results folder, whose overlays must not become inputs."""
    return out is not None and Path(_absolute(path)).is_relative_to(_absolute(out))


def _absolute(path: str | Path) -> str:
    """An absolute path; addresses stay as they are."""
    return str(path) if is_remote(str(path)) else os.path.abspath(path)


def _is_pattern(text: str) -> bool:
    return not Path(text).exists() and glob.has_magic(text)
