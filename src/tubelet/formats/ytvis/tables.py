"""The tables of videos and categories in YouTube-VIS files, checked."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tubelet.core.errors import FormatError
from tubelet.core.masks import MAX_PIXELS
from tubelet.formats.ytvis.document import YtvisDocument, shape, whole

LONGEST = 1_000_000  # frames; a video from outside that claims more is refused


class ListedVideo(NamedTuple):
    """A video as a file's table lists it."""

    id: int
    name: str
    size: tuple[int, int]
    files: tuple[str, ...]
    subset: str


def inferred(document: YtvisDocument, path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Tables of videos and categories for results that come without."""
    videos: dict[int, dict[str, Any]] = {}
    categories: set[int] = set()
    for entry in document.annotations or ():
        number, category = whole(entry.video_id), whole(entry.category_id)
        if number is None or category is None:
            raise FormatError(f"{entry.where(path.name)}: expected numbers as video_id and category_id")
        categories.add(category)
        length, size = shape(entry, path.name)
        held = videos.setdefault(number, {"id": number, "length": length})
        if size is not None:
            held.setdefault("height", size[0])
            held.setdefault("width", size[1])
    known = [video for video in videos.values() if "height" in video]
    return known, [{"id": category} for category in sorted(categories)]


def categories_of(document: YtvisDocument, path: Path) -> dict[int, str]:
    """Category id -> name, by rising id."""
    categories: dict[int, str] = {}
    for entry in document.categories:
        number, name = whole(entry.get("id")), entry.get("name")
        if number is None or number in categories:
            raise FormatError(f"{path}: a category needs a number of its own as its id, got {entry.get('id')!r}")
        categories[number] = name if isinstance(name, str) and name else str(number)
    return dict(sorted(categories.items()))


def videos_of(document: YtvisDocument, path: Path) -> list[ListedVideo]:
    """The table of videos, by rising id."""
    videos: dict[int, ListedVideo] = {}
    for entry in document.videos:
        number = whole(entry.get("id"))
        if number is None or number in videos:
            raise FormatError(f"{path}: a video needs a number of its own as its id, got {entry.get('id')!r}")
        videos[number] = _listed(entry, number, f"{path}: video {number}")
    return [videos[number] for number in sorted(videos)]


def _listed(entry: dict[str, Any], number: int, where: str) -> ListedVideo:
    height, width = whole(entry.get("height")), whole(entry.get("width"))
    if height is None or width is None or min(height, width) < 1 or height * width > MAX_PIXELS:
        raise FormatError(f"{where}: a size of {entry.get('height')!r} x {entry.get('width')!r} is not supported")
    files = entry.get("file_names") or []
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise FormatError(f"{where}: expected file_names to be a list of names")
    length = whole(entry.get("length", len(files)))
    if length is None or not 1 <= length <= LONGEST or (files and len(files) != length):
        raise FormatError(f"{where}: a length of {entry.get('length')!r} with {len(files)} file names is not right")
    name = name_of(entry) or str(number)
    subset = entry.get("subset")
    named = tuple(files) or tuple(f"{name}/{t:05d}.jpg" for t in range(length))
    return ListedVideo(number, name, (height, width), named, subset if isinstance(subset, str) else "")


def shots_of(entry: dict[str, Any], length: int) -> tuple[int, ...]:
    """The first frame of each shot that a video of a file of ours tells; empty where it does not, or not rightly."""
    told = entry.get("shots")
    starts = [whole(start) for start in told] if isinstance(told, list) else []
    known = [start for start in starts if start is not None and start < length]
    rising = all(before < after for before, after in pairwise(known))
    return tuple(known) if rising and known[:1] == [0] and len(known) == len(starts) else ()


def name_of(entry: dict[str, Any]) -> str | None:
    """What a file calls a video: its name, or the folder of its frames."""
    name, files = entry.get("name"), entry.get("file_names")
    if isinstance(name, str) and name:
        return name
    if isinstance(files, list) and files and isinstance(files[0], str) and "/" in files[0]:
        return files[0].rpartition("/")[0]
    return None
