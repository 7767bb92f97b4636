"""Check the tables of videos and categories in YouTube-VIS files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tubelet.core.errors import FormatError
from tubelet.core.masks import MAX_PIXELS
from tubelet.formats.frame_lines import LONGEST
from tubelet.formats.ytvis.document import YtvisDocument, shape, whole


class ListedVideo(NamedTuple):
    """One video of a file's table.

    Example:
        >>> from tubelet.formats.ytvis.tables import ListedVideo
        >>> ListedVideo(id=1, name="dog", size=(4, 6), files=("dog/00000.jpg",), subset="").name
        'dog'
    """

    id: int
    name: str
    size: tuple[int, int]  # height, width
    files: tuple[str, ...]  # one per frame
    subset: str  # "short", "long", or empty


def inferred(document: YtvisDocument, path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Infer the tables of videos and categories from results that come without.

    Videos of which no mask gives the size are left out. Raises FormatError if an id is not an
    integer.

    Example:
        >>> import msgspec
        >>> from pathlib import Path
        >>> from tubelet.formats.ytvis.document import AnnotationEntry, YtvisDocument
        >>> from tubelet.formats.ytvis.tables import inferred
        >>> raw = msgspec.Raw(b'[null, {"size": [4, 6], "counts": "0h0"}]')
        >>> entry = AnnotationEntry(video_id=7, category_id=2, segmentations=raw)
        >>> inferred(YtvisDocument(annotations=[entry], bare=True), Path("results.json"))
        ([{'id': 7, 'length': 2, 'height': 4, 'width': 6}], [{'id': 2}])
    """
    videos: dict[int, dict[str, Any]] = {}
    categories: set[int] = set()
    for entry in document.annotations or ():
        number = whole(entry.video_id)
        category = whole(entry.category_id)
        if number is None or category is None:
            raise FormatError(f"{entry.where(path.name)}: expected numbers as video_id and category_id")

        categories.add(category)
        length, size = shape(entry, path.name)
        video = videos.setdefault(number, {"id": number, "length": length})
        if size is not None:
            video.setdefault("height", size[0])
            video.setdefault("width", size[1])

    with_size = [video for video in videos.values() if "height" in video]
    return with_size, [{"id": category} for category in sorted(categories)]


def categories_of(document: YtvisDocument, path: Path) -> dict[int, str]:
    """Return the name of each category id, sorted by id; a category without a name is called by its id.

    Raises FormatError if an id is not an integer or occurs twice.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.formats.ytvis.document import YtvisDocument
        >>> from tubelet.formats.ytvis.tables import categories_of
        >>> categories = [{"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}]
        >>> categories_of(YtvisDocument(categories=categories), Path("train.json"))
        {2: 'dog', 7: 'cat'}
    """
    categories: dict[int, str] = {}
    for entry in document.categories:
        number = whole(entry.get("id"))
        name = entry.get("name")
        if number is None or number in categories:
            raise FormatError(f"{path}: a category needs a number of its own as its id, got {entry.get('id')!r}")
        categories[number] = name if isinstance(name, str) and name else str(number)
    return dict(sorted(categories.items()))


def videos_of(document: YtvisDocument, path: Path) -> list[ListedVideo]:
    """Return the videos of a file's table, sorted by id.

    Raises FormatError if an id, a size, a length or the file names are invalid.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.formats.ytvis.document import YtvisDocument
        >>> from tubelet.formats.ytvis.tables import videos_of
        >>> entry = {"id": 7, "width": 6, "height": 4, "file_names": ["dog/00000.jpg", "dog/00005.jpg"]}
        >>> videos_of(YtvisDocument(videos=[entry]), Path("train.json"))[0].name
        'dog'
    """
    videos: dict[int, ListedVideo] = {}
    for entry in document.videos:
        number = whole(entry.get("id"))
        if number is None or number in videos:
            raise FormatError(f"{path}: a video needs a number of its own as its id, got {entry.get('id')!r}")
        videos[number] = _listed(entry, number, f"{path}: video {number}")
    return [videos[number] for number in sorted(videos)]


def _listed(entry: dict[str, Any], number: int, where: str) -> ListedVideo:
    height = whole(entry.get("height"))
    width = whole(entry.get("width"))
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
    return ListedVideo(
        id=number,
        name=name,
        size=(height, width),
        files=tuple(files) or tuple(f"{name}/{t:05d}.jpg" for t in range(length)),
        subset=subset if isinstance(subset, str) else "",
    )


def shots_of(entry: dict[str, Any], length: int) -> tuple[int, ...]:
    """Return the first frame of each shot, which tubelet's own files give; empty if absent or invalid.

    Example:
        >>> from tubelet.formats.ytvis.tables import shots_of
        >>> shots_of({"shots": [0, 5]}, length=10), shots_of({"shots": [5, 0]}, length=10)
        ((0, 5), ())
    """
    shots = entry.get("shots")
    if not isinstance(shots, list):
        return ()

    starts = [whole(start) for start in shots]
    valid = [start for start in starts if start is not None and start < length]
    rising = all(before < after for before, after in pairwise(valid))
    complete = len(valid) == len(starts)
    return tuple(valid) if rising and complete and valid[:1] == [0] else ()


def name_of(entry: dict[str, Any]) -> str | None:
    """Return a video's name in a file, else the folder of its first frame, else None.

    Example:
        >>> from tubelet.formats.ytvis.tables import name_of
        >>> name_of({"file_names": ["dog/00000.jpg"]})
        'dog'
    """
    name = entry.get("name")
    if isinstance(name, str) and name:
        return name

    files = entry.get("file_names")
    if isinstance(files, list) and files and isinstance(files[0], str) and "/" in files[0]:
        return files[0].rpartition("/")[0]
    return None
