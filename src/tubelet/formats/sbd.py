"""Read the Semantic Boundaries Dataset (SBD): images of Pascal VOC, with one MATLAB file of objects each.

    img/2008_000002.jpg
    inst/2008_000002.mat    a struct GTinst: Segmentation, the number of each pixel's object; Categories, the class of
                            each object, from 1, in VOC's order

Each image is a video of one frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import FormatError, InputError
from tubelet.core.types import Track, Video, VideoSet
from tubelet.core.untrusted.matlab import read_struct
from tubelet.formats.classes import VOC
from tubelet.formats.files import Files, StoredFrames, check_size, open_files
from tubelet.formats.lazy import LazyVideos

IMAGES, OBJECTS = "img", "inst"
STRUCT = "GTinst"


class _Entry(NamedTuple):
    image: str
    objects: str  # path of the MATLAB file


def read(root: str | Path) -> VideoSet:
    """Read a folder or archive, such as benchmark_RELEASE; a MATLAB file is read when its video is used.

    Raises InputError if there is no such file, FormatError if one is not of this form.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from scipy.io import savemat
        >>> from tubelet.formats import sbd
        >>> objects = {"Segmentation": np.array([[0, 1, 1]], np.uint8), "Categories": [[12]]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "inst").mkdir()
        ...     savemat(Path(folder, "inst", "a.mat"), {"GTinst": objects})
        ...     videos = sbd.read(folder)
        ...     videos.videos[0].tracks, videos.classes[11]
        ((Track(id=1, label=11, score=1, frames=1 of 1),), 'dog')
    """
    files = open_files(root)
    paths = [PurePosixPath(name) for name in files.names if PurePosixPath(name).match(f"{OBJECTS}/*.mat")]
    if not paths:
        raise InputError(f"{files}: expected MATLAB files in a folder called {OBJECTS}")
    entries = [_Entry(str(path.parent.parent / IMAGES / f"{path.stem}.jpg"), str(path)) for path in paths]
    return VideoSet(videos=_Images(files, entries), classes=VOC)


class _Images(LazyVideos[_Entry]):
    cache_size = 1024

    def __init__(self, files: Files, entries: Sequence[_Entry]) -> None:
        super().__init__(entries)
        self.files = files

    def make(self, entry: _Entry) -> Video:
        where = self.files.where(entry.objects)
        struct = read_struct(self.files.read(entry.objects), STRUCT, where)
        objects = _whole_numbers(struct, "Segmentation", where)
        categories = _whole_numbers(struct, "Categories", where).ravel()
        if objects.ndim != 2:
            raise FormatError(f"{where}: expected one number per pixel, got {list(objects.shape)}")

        height, width = objects.shape
        size = check_size(height, width, where)
        frames = StoredFrames(self.files, (entry.image,), size)
        tracks = tuple(_tracks(objects, categories.tolist(), where))
        return Video(id=PurePosixPath(entry.image).stem, size=size, frames=frames, tracks=tracks)


def _whole_numbers(struct: dict[str, np.ndarray], field: str, where: str) -> np.ndarray:
    values = struct.get(field)
    if values is None or values.dtype.kind not in "iuf":
        raise FormatError(f"{where}: expected numbers in {STRUCT}.{field}")
    return values.astype(np.int64)


def _tracks(objects: np.ndarray, categories: Sequence[int], where: str) -> Iterator[Track]:
    for number in np.unique(objects[objects > 0]).tolist():
        category = categories[number - 1] if number <= len(categories) else 0
        if not 1 <= category <= len(VOC):
            raise FormatError(f"{where}: object {number} has no class from 1 to {len(VOC)}")
        rles = tuple(masks.encode((objects == number)[None]))
        yield Track(id=number, label=category - 1, score=1.0, rles=rles)
