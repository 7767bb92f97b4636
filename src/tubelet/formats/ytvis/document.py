"""The JSON under YouTube-VIS files: parsed in parts, so that a large file costs little more memory than its own bytes.

A result file is nearly all mask strings. The outer structure is parsed first, every annotation's masks staying raw
bytes; then the masks of a few tracks at a time are parsed, joined, checked and packed (`core.masks.packed`).
"""

from __future__ import annotations

import math
import mmap
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
from tubelet.core.masks.packed import Broken, Tube, pack_counts
from tubelet.core.untrusted.documents import decode_json, decode_json_as, spell_out_nan
from tubelet.core.untrusted.files import mapped

COMPLAINT = "not of the YouTube-VIS form"
LARGEST_INTEGER = (1 << 63) - 1  # what arrays hold
BATCH = 32  # tracks parsed before they are packed together


@dataclass(slots=True)
class Faults:
    """What is wrong with a file: the first fault raises FormatError, or, where `lenient`, all are counted by kind."""

    lenient: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)  # an example of each kind

    def note(self, kind: str, message: str) -> None:
        """Raise, or count: the caller leaves the faulty part out and goes on."""
        if not self.lenient:
            raise FormatError(message)
        self.counts[kind] += 1
        self.first.setdefault(kind, message)


class AnnotationEntry(msgspec.Struct):
    """One annotation or result as it stands in the file, nothing checked; masks are raw JSON, or parsed already."""

    id: Any = None
    track_id: Any = None
    video_id: Any = None
    category_id: Any = None
    score: Any = None
    iscrowd: Any = 0
    areas: Any = None
    occlusion: Any = None
    segmentations: msgspec.Raw = msgspec.Raw(b"null")
    place: int = 0  # position in the file, from 1

    def where(self, file: str) -> str:
        """How a message calls it: file, video and track."""
        named = self.track_id if self.track_id is not None else self.id if self.id is not None else self.place
        return f"{file}: video {self.video_id}, track {named}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A track whose masks are to be unpacked: what its video demands, and where an error is to point."""

    entry: AnnotationEntry
    size: tuple[int, int]
    length: int
    file: str

    @property
    def where(self) -> str:
        return self.entry.where(self.file)


class YtvisDocument(msgspec.Struct):
    """A parsed file; `bare` marks a list of results without tables of videos and categories."""

    videos: list[dict[str, Any]] = []
    categories: list[dict[str, Any]] = []
    annotations: list[AnnotationEntry] | None = None
    bare: bool = False


class _Faulty(FormatError):
    """A track's masks are not right."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Mask(msgspec.Struct, gc=False):
    size: tuple[int, int]
    counts: str


_MASKS = list[_Mask | None]
_SIZE, _COUNTS = attrgetter("size"), attrgetter("counts")
_NOT_NUMBERS = (b"NaN", b"Infinity")  # as Python writes them


def load(path: Path) -> YtvisDocument:
    """Parse a file. Raises InputError where it cannot be read, FormatError where it is no JSON or of another form."""
    data = mapped(path)
    try:
        document = _parse(data, path)
    except FormatError:
        if not any(data.find(word) >= 0 for word in _NOT_NUMBERS):
            raise
        document = _parse(spell_out_nan(data, str(path)), path)  # so that the track with the NaN can be named
    for place, entry in enumerate(document.annotations or (), 1):
        entry.place = place
    return document


def _parse(data: bytes | mmap.mmap, path: Path) -> YtvisDocument:
    if bytes(data[:1024]).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
        entries = decode_json_as(list[AnnotationEntry], data, str(path), complaint=COMPLAINT)
        return YtvisDocument(annotations=entries, bare=True)
    document: YtvisDocument = decode_json_as(YtvisDocument, data, str(path), complaint=COMPLAINT)
    return document


def unpack(wanted: Iterable[Wanted], faults: Faults) -> Iterator[tuple[AnnotationEntry, Tube]]:
    """Parse, check and pack the masks of each track, in order; faulty ones are noted and left out.

    The file's bytes are let go as the tracks are read.
    """
    for batch in _batches(wanted, faults):
        tracks, data, lengths = (list(part) for part in zip(*batch, strict=True))
        for one, tube in zip(tracks, pack_counts(data, lengths, [one.size for one in tracks]), strict=True):
            if isinstance(tube, Broken):
                faults.note("broken mask", f"{one.where}, frame {tube.frame}: {tube.reason}")
            else:
                yield one.entry, tube


def _batches(wanted: Iterable[Wanted], faults: Faults) -> Iterator[list[tuple[Wanted, bytes, np.ndarray]]]:
    """Tracks with their joined counts and the length of each frame's, some at a time."""
    batch: list[tuple[Wanted, bytes, np.ndarray]] = []
    for one in wanted:
        try:
            batch.append((one, *_counts(one)))
        except _Faulty as fault:
            faults.note(fault.kind, str(fault))
        one.entry.segmentations = msgspec.Raw()
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _counts(one: Wanted) -> tuple[bytes, np.ndarray]:
    """Compressed counts of all frames, joined, and the length of each, 0 where absent; raises _Faulty."""
    try:
        found: list[_Mask | None] = decode_json_as(_MASKS, one.entry.segmentations, "masks")
    except FormatError:
        return _counts_slowly(one)
    if len(found) != one.length:
        raise _Faulty("wrong length", _wrong_length(one, len(found)))
    masks_there = [mask for mask in found if mask is not None] if None in found else cast(list[_Mask], found)
    if not set(map(_SIZE, masks_there)) <= {one.size}:
        t, size = next((t, mask.size) for t, mask in enumerate(found) if mask is not None and mask.size != one.size)
        expected = f"expected a mask of size {list(one.size)} (height, width), got {list(size)}"
        raise _Faulty("wrong mask size", f"{one.where}, frame {t}: {expected}")
    written = list(map(_COUNTS, masks_there))
    counts = written if masks_there is found else ["" if mask is None else mask.counts for mask in found]
    joined = "".join(counts)
    if "" in written or not joined.isascii():
        t = next(t for t, mask in enumerate(found) if mask is not None and not (mask.counts and mask.counts.isascii()))
        raise _Faulty("broken mask", f"{one.where}, frame {t}: counts are empty or not ASCII")
    return joined.encode("ascii"), np.fromiter(map(len, counts), np.int64, len(counts))


def _counts_slowly(one: Wanted) -> tuple[bytes, np.ndarray]:
    """Polygons, plain run lengths, empty objects, and everything that is wrong."""
    try:
        found = decode_json(one.entry.segmentations, one.where)
    except FormatError as error:
        raise _Faulty("broken mask", str(error)) from None
    if not isinstance(found, list):
        came = "nothing" if found is None else type(found).__name__
        raise _Faulty("no masks", f"{one.where}: expected a list of segmentations, one per frame, got {came}")
    if len(found) != one.length:
        raise _Faulty("wrong length", _wrong_length(one, len(found)))
    counts = []
    for t, value in enumerate(found):
        try:
            rle = masks.from_json(value, one.size, f"{one.where}, frame {t}")
        except FormatError as error:
            raise _Faulty("broken mask", str(error)) from None
        counts.append(b"" if rle is None else rle.counts)
    return b"".join(counts), np.fromiter(map(len, counts), np.int64, len(counts))


def shape(entry: AnnotationEntry, file: str) -> tuple[int, tuple[int, int] | None]:
    """How many frames an annotation spans, and the size of its first mask that states one; nothing else is checked."""
    found = decode_json(entry.segmentations, entry.where(file))
    if not isinstance(found, list):
        return 0, None
    sizes = (whole_pair(mask.get("size")) for mask in found if isinstance(mask, dict))
    return len(found), next((size for size in sizes if size is not None), None)


def whole_pair(value: Any) -> tuple[int, int] | None:
    """Two integers, None where the value is anything else."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    first, second = whole(value[0]), whole(value[1])
    return None if first is None or second is None else (first, second)


def _wrong_length(one: Wanted, came: int) -> str:
    return f"{one.where}: expected {one.length} segmentations, one per frame of the video, got {came}"


def whole(value: Any) -> int | None:
    """The value as an integer of 64 bits, None where it is none; 3.0 is one, True is not."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    return value if type(value) is int and -LARGEST_INTEGER <= value <= LARGEST_INTEGER else None


def finite(value: Any) -> float | None:
    """The value as a finite number, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def save(path: Path, head: bytes, entries: Iterable[dict[str, Any]], tail: bytes) -> None:
    """Write `head`, the entries with commas between, and `tail`; the file appears whole or not at all."""
    encode = msgspec.json.Encoder().encode
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(head)
        for n, entry in enumerate(entries):
            file.write((b",\n" if n else b"") + encode(entry))
        file.write(tail)
