"""The JSON of YouTube-VIS files, parsed in parts to save memory.

A result file is nearly all mask strings. First the outer structure is parsed; the masks of each
annotation stay raw bytes. Then the masks of a few tracks at a time are parsed, joined, checked and
packed (`core.masks.packed`). So a large file needs little more memory than its own size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from tubelet.core import masks
from tubelet.core.atomic import replacing
from tubelet.core.errors import FormatError
from tubelet.core.masks.packed import Broken, TrackCounts, Tube, pack_counts
from tubelet.core.untrusted.documents import decode_json, decode_json_as

LARGEST_INTEGER = (1 << 63) - 1  # of int64 arrays
BATCH = 32  # tracks that are parsed and packed together


@dataclass(slots=True)
class Faults:
    """How to treat errors in a file: raise FormatError at the first, or, if `lenient`, count them.

    Example:
        >>> from tubelet.formats.ytvis.document import Faults
        >>> faults = Faults(lenient=True)
        >>> faults.note("score", "results.json: video 1, track 2: expected a finite score, got none")
        >>> dict(faults.counts)
        {'score': 1}
    """

    lenient: bool = False
    counts: Counter[str] = field(default_factory=Counter)  # number of errors of each kind
    first: dict[str, str] = field(default_factory=dict)  # the first message of each kind

    def note(self, kind: str, message: str) -> None:
        """Count an error, or raise FormatError with its message; the caller skips the faulty part."""
        if not self.lenient:
            raise FormatError(message)
        self.counts[kind] += 1
        self.first.setdefault(kind, message)


class AnnotationEntry(msgspec.Struct):
    """One annotation or result as in the file, unchecked; its masks are raw JSON.

    Example:
        >>> from tubelet.formats.ytvis.document import AnnotationEntry
        >>> AnnotationEntry(id=3, video_id=1).where("train.json")
        'train.json: video 1, track 3'
    """

    id: Any = None
    track_id: Any = None
    video_id: Any = None
    category_id: Any = None
    score: Any = None
    iscrowd: Any = 0
    areas: Any = None
    occlusion: Any = None
    segmentations: msgspec.Raw = msgspec.Raw(b"null")
    position: Any = 0  # in the file, from 1; `load` sets it

    def where(self, file: str) -> str:
        """Name file, video and track for an error message."""
        if self.track_id is not None:
            track = self.track_id
        elif self.id is not None:
            track = self.id
        else:
            track = self.position
        return f"{file}: video {self.video_id}, track {track}"


class RecordedEntry(AnnotationEntry):
    """One track of frame lines, whose masks are counts already.

    Example:
        >>> from tubelet.formats.ytvis.document import RecordedEntry
        >>> RecordedEntry(id=3, video_id=1).counts is None
        True
    """

    counts: TrackCounts | None = None


@dataclass(frozen=True, slots=True)
class UnpackedTrack:
    """A track whose masks are not yet parsed, with the size and length that its video demands.

    Example:
        >>> from tubelet.formats.ytvis.document import AnnotationEntry, UnpackedTrack
        >>> UnpackedTrack(AnnotationEntry(id=3, video_id=1), (4, 6), 2, "train.json").where
        'train.json: video 1, track 3'
    """

    entry: AnnotationEntry
    size: tuple[int, int]  # height, width
    length: int  # frames
    file: str  # for error messages

    @property
    def where(self) -> str:
        """File, video and track for an error message."""
        return self.entry.where(self.file)


class YtvisDocument(msgspec.Struct):
    """A parsed file; `bare` is true for a list of results without tables of videos and categories.

    Example:
        >>> from tubelet.formats.ytvis.document import YtvisDocument
        >>> YtvisDocument(videos=[{"id": 1, "length": 2}]).annotations is None
        True
    """

    videos: list[dict[str, Any]] = []
    categories: list[dict[str, Any]] = []
    annotations: list[AnnotationEntry] | None = None
    bare: bool = False


class _MaskError(FormatError):
    """The masks of a track are invalid."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Mask(msgspec.Struct, gc=False):
    size: tuple[int, int]
    counts: str


_MASKS = list[_Mask | None]
_SIZE = attrgetter("size")
_COUNTS = attrgetter("counts")


def unpack(tracks: Iterable[UnpackedTrack], faults: Faults) -> Iterator[tuple[AnnotationEntry, Tube]]:
    """Parse, check and pack the masks of each track, in order.

    Tracks with invalid masks are noted in `faults` and left out. Each entry's raw masks are dropped
    once they are parsed.

    Example:
        >>> import msgspec
        >>> from tubelet.formats.ytvis.document import AnnotationEntry, Faults, UnpackedTrack, unpack
        >>> raw = msgspec.Raw(b'[{"size": [4, 6], "counts": "0h0"}, null]')
        >>> track = UnpackedTrack(AnnotationEntry(id=3, segmentations=raw), (4, 6), 2, "train.json")
        >>> [tube for entry, tube in unpack([track], Faults())]
        [Tube(size=(4, 6), frames=1 of 2)]
    """
    for batch in _batches(tracks, faults):
        tubes = pack_counts([counts for _, counts in batch])
        for (track, _), tube in zip(batch, tubes, strict=True):
            if isinstance(tube, Broken):
                faults.note("broken mask", f"{track.where}, frame {tube.frame}: {tube.reason}")
            else:
                yield track.entry, tube


def _batches(tracks: Iterable[UnpackedTrack], faults: Faults) -> Iterator[list[tuple[UnpackedTrack, TrackCounts]]]:
    """Up to BATCH tracks at a time, each with its counts."""
    batch: list[tuple[UnpackedTrack, TrackCounts]] = []
    for track in tracks:
        try:
            batch.append((track, _counts(track)))
        except _MaskError as error:
            faults.note(error.kind, str(error))
        track.entry.segmentations = msgspec.Raw()

        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _counts(track: UnpackedTrack) -> TrackCounts:
    """Compressed counts of all frames.

    Raises _MaskError. This is the fast path for compressed masks; `_counts_slowly` takes the rest.
    """
    if isinstance(track.entry, RecordedEntry) and track.entry.counts is not None:
        return _checked_extent(track, track.entry.counts)
    try:
        frames: list[_Mask | None] = decode_json_as(_MASKS, track.entry.segmentations, "masks")
    except FormatError:
        return _counts_slowly(track)

    _check_length(track, len(frames))
    present = [mask for mask in frames if mask is not None] if None in frames else cast(list[_Mask], frames)
    if not set(map(_SIZE, present)) <= {track.size}:
        raise _wrong_size(track, frames)

    present_counts = list(map(_COUNTS, present))
    counts = present_counts if present is frames else ["" if mask is None else mask.counts for mask in frames]
    joined = "".join(counts)
    if "" in present_counts or not joined.isascii():
        raise _wrong_counts(track, frames)
    return TrackCounts.dense(joined.encode("ascii"), np.fromiter(map(len, counts), np.int64, len(counts)), track.size)


def _checked_extent(track: UnpackedTrack, counts: TrackCounts) -> TrackCounts:
    _check_length(track, counts.length)
    if counts.size != track.size:
        expected = f"expected masks of size {list(track.size)} (height, width), got {list(counts.size)}"
        raise _MaskError("wrong mask size", f"{track.where}: {expected}")
    return counts


def _wrong_size(track: UnpackedTrack, frames: list[_Mask | None]) -> _MaskError:
    """The error for the first mask of another size."""
    sizes = ((t, mask.size) for t, mask in enumerate(frames) if mask is not None)
    t, size = next((t, size) for t, size in sizes if size != track.size)
    expected = f"expected a mask of size {list(track.size)} (height, width), got {list(size)}"
    return _MaskError("wrong mask size", f"{track.where}, frame {t}: {expected}")


def _wrong_counts(track: UnpackedTrack, frames: list[_Mask | None]) -> _MaskError:
    """The error for the first mask whose counts are empty or not ASCII."""
    all_counts = ((t, mask.counts) for t, mask in enumerate(frames) if mask is not None)
    t = next(t for t, counts in all_counts if not (counts and counts.isascii()))
    return _MaskError("broken mask", f"{track.where}, frame {t}: counts are empty or not ASCII")


def _counts_slowly(track: UnpackedTrack) -> TrackCounts:
    """As `_counts`, also for polygons, plain run lengths and empty objects, with an error for anything else."""
    try:
        frames = decode_json(track.entry.segmentations, track.where)
    except FormatError as error:
        raise _MaskError("broken mask", str(error)) from None

    if not isinstance(frames, list):
        came = "nothing" if frames is None else type(frames).__name__
        raise _MaskError("no masks", f"{track.where}: expected a list of segmentations, one per frame, got {came}")
    _check_length(track, len(frames))

    counts = []
    for t, value in enumerate(frames):
        try:
            rle = masks.from_json(value, track.size, f"{track.where}, frame {t}")
        except FormatError as error:
            raise _MaskError("broken mask", str(error)) from None
        counts.append(b"" if rle is None else rle.counts)
    lengths = np.fromiter(map(len, counts), np.int64, len(counts))
    return TrackCounts.dense(b"".join(counts), lengths, track.size)


def _check_length(track: UnpackedTrack, length: int) -> None:
    if length != track.length:
        expected = f"expected {track.length} segmentations, one per frame of the video, got {length}"
        raise _MaskError("wrong length", f"{track.where}: {expected}")


def shape(entry: AnnotationEntry, file: str) -> tuple[int, tuple[int, int] | None]:
    """Number of frames of an annotation, and the first (height, width) that its masks give.

    Nothing else is checked. The size is None if no mask gives one.

    Example:
        >>> import msgspec
        >>> from tubelet.formats.ytvis.document import AnnotationEntry, shape
        >>> raw = msgspec.Raw(b'[null, {"size": [4, 6], "counts": "0h0"}]')
        >>> shape(AnnotationEntry(segmentations=raw), "results.json")
        (2, (4, 6))
    """
    frames = decode_json(entry.segmentations, entry.where(file))
    if not isinstance(frames, list):
        return 0, None

    for mask in frames:
        size = whole_pair(mask.get("size")) if isinstance(mask, dict) else None
        if size is not None:
            return len(frames), size
    return len(frames), None


def whole_pair(value: Any) -> tuple[int, int] | None:
    """Convert a list of two integers; None for any other value.

    Example:
        >>> from tubelet.formats.ytvis.document import whole_pair
        >>> whole_pair([4, 6.0]), whole_pair([4])
        ((4, 6), None)
    """
    if not isinstance(value, list) or len(value) != 2:
        return None
    first = whole(value[0])
    second = whole(value[1])
    return None if first is None or second is None else (first, second)


def whole(value: Any) -> int | None:
    """Convert to an integer of 64 bits; None for any other value. 3.0 is an integer, True is not.

    Example:
        >>> from tubelet.formats.ytvis.document import whole
        >>> whole(3.0), whole(3.5), whole(True)
        (3, None, None)
    """
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    return value if type(value) is int and -LARGEST_INTEGER <= value <= LARGEST_INTEGER else None


def finite(value: Any) -> float | None:
    """Convert to a finite float; None for any other value.

    Example:
        >>> from tubelet.formats.ytvis.document import finite
        >>> finite(3), finite(float("nan")), finite("3")
        (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def save(path: Path, head: bytes, entries: Iterable[dict[str, Any]], tail: bytes) -> None:
    """Write `head`, the entries separated by commas, and `tail`; the file is written atomically.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.ytvis.document import save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "results.json")
        ...     save(path, b"[", [{"video_id": 1}], b"]")
        ...     path.read_text()
        '[{"video_id":1}]'
    """
    encode = msgspec.json.Encoder().encode
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(head)
        for n, entry in enumerate(entries):
            separator = b",\n" if n else b""
            file.write(separator + encode(entry))
        file.write(tail)
