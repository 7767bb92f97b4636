"""Results of long videos: one line of JSON per frame, written as frames are finished.

    {"line":"video","name":"dog","height":480,"width":640,"length":3000,"classes":["person","dog"]}
    {"line":"frame","frame":0,"ids":[4,7],"labels":[1,1],"scores":[0.9,0.4],"counts":["0h0...","0h0..."]}
    {"line":"track","id":4,"label":1,"score":0.8735}
    {"line":"end","tracks":1,"shots":[0,1200]}

A video line begins a video; a file may have several. A frame line has the objects of one frame: their ids, the class
and score that each has up to this frame, and their masks as COCO's compressed counts. Track lines follow the last
frame: the objects that are results, with their final class and score. A track is the object of its id, or is made of
`parts` of objects: [id, first frame, frame after the last]; none for a track without a mask.

A line is added in one piece, so a run that is killed leaves every frame up to then. Without an end line, each object
is a track, with its last class and score. Frames without objects are cheap, and nothing is stored where an object is
absent, so a file grows with its masks alone.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, NamedTuple, overload

import msgspec
import numpy as np

from tubelet.core.atomic import append, check_file, replacing
from tubelet.core.errors import ConfigError
from tubelet.core.masks import MAX_PIXELS, RLE
from tubelet.core.masks.sparse import FRAME, SparseMasks
from tubelet.core.records import Prediction, Track
from tubelet.core.text import plain
from tubelet.core.untrusted.files import OpenFile, as_path

SUFFIX = ".jsonl"
LONGEST = 1_000_000  # frames; a file whose video claims more is refused
DIGITS = 4  # of the scores in frame lines; track lines have all

Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_PIXELS)]
FrameNumber = Annotated[int, msgspec.Meta(ge=0, le=LONGEST)]


class VideoLine(msgspec.Struct, tag_field="line", tag="video"):
    """The first line of a video.

    Example:
        >>> from tubelet.formats.frame_lines import VideoLine
        >>> VideoLine(name="dog", height=4, width=6, length=2).classes
        []
    """

    name: str
    height: Side
    width: Side
    length: Annotated[int, msgspec.Meta(ge=1, le=LONGEST)]
    classes: list[str] = []


class FrameLine(msgspec.Struct, tag_field="line", tag="frame"):
    """The n objects of one frame.

    Example:
        >>> import msgspec
        >>> from tubelet.formats.frame_lines import FrameLine
        >>> msgspec.json.encode(FrameLine(frame=3, ids=[1], labels=[0], scores=[0.5], counts=["0h0"]))
        b'{"line":"frame","frame":3,"ids":[1],"labels":[0],"scores":[0.5],"counts":["0h0"]}'
    """

    frame: FrameNumber
    ids: list[int] = []
    labels: list[int] = []
    scores: list[float | None] = []  # None for what is no number, as JSON has it
    counts: list[str] = []


class TrackLine(msgspec.Struct, tag_field="line", tag="track", omit_defaults=True):
    """One track, after all frames.

    Example:
        >>> from tubelet.formats.frame_lines import TrackLine
        >>> TrackLine(id=3, label=0, score=0.5, parts=[(1, 0, 20), (2, 20, 40)]).ignore
        False
    """

    id: int
    label: int
    score: float | None
    ignore: bool = False
    parts: list[tuple[int, FrameNumber, FrameNumber]] | None = None  # None: the whole object of this id


class EndLine(msgspec.Struct, tag_field="line", tag="end"):
    """The last line of a video.

    Example:
        >>> from tubelet.formats.frame_lines import EndLine
        >>> EndLine(tracks=2).shots
        []
    """

    tracks: int
    shots: list[FrameNumber] = []


Line = VideoLine | FrameLine | TrackLine | EndLine


class _Place(NamedTuple):
    """Where the counts of a mask are, as the JSON string has them: in a line, or in the file."""

    start: int
    length: int


class FrameRecord:
    """A file of one video that grows with each finished frame; masks are read from it when they are used.

    What was at the path before is replaced at once. Raises InputError or WriteError if it cannot be written, and
    ConfigError for a video of more than LONGEST frames.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core import masks
        >>> from tubelet.formats.frame_lines import FrameRecord
        >>> rles = masks.encode(np.ones((1, 4, 6), bool))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record = FrameRecord(Path(folder, "dog.jsonl"), "dog", size=(4, 6), length=9, classes=("dog",))
        ...     record.add(5, ids=[3], labels=[0], scores=[0.5], rles=rles)
        ...     record.masks(3, length=9)[5]
        RLE(size=(4, 6), counts=b'0h0')
    """

    def __init__(self, path: Path, name: str, size: tuple[int, int], length: int, classes: Sequence[str]) -> None:
        if length > LONGEST:
            expected = f"results: expected a video of at most {LONGEST} frames, got {length}"
            raise ConfigError(f"{expected}; take a part of it, or every n-th frame")
        self.path = path
        check_file(path)
        with replacing(path) as temporary:
            temporary.write_bytes(_video_line(name, size, length, classes))
        self._end = path.stat().st_size  # where the next line begins
        file = OpenFile(path)
        self._frames: defaultdict[int, array[int]] = defaultdict(lambda: array("i"))
        self._masks: defaultdict[int, StoredMasks] = defaultdict(lambda: StoredMasks(file, size))

    def add(
        self, t: int, ids: Sequence[int], labels: Sequence[int], scores: Sequence[float], rles: Sequence[RLE]
    ) -> None:
        """Add a frame, later than those before, with its n objects."""
        line, places = _frame_line(t, ids, labels, scores, [rle.counts for rle in rles])
        append(self.path, line)
        for id, place in zip(ids, places, strict=True):
            self._frames[id].append(t)
            self._masks[id].append(self._end + place.start, place.length)
        self._end += len(line)

    def masks(self, id: int, length: int) -> SparseMasks:
        """The masks of an object, in a video of `length` frames; none if it was never added."""
        return SparseMasks(length, np.array(self._frames[id], FRAME), self._masks[id])

    def finish(self, tracks: Sequence[Track], objects: Mapping[int, int], shots: Sequence[int]) -> None:
        """Say which objects are results.

        Args:
            tracks: The results; each is one object, perhaps without some of its frames.
            objects: The object of each track, by the track's id.
            shots: First frame of each shot.
        """
        lines = []
        for track in tracks:
            object_id = objects[track.id]
            lines.append(_track_line(track, object_id, len(self._frames[object_id])))
        append(self.path, b"".join([*lines, _line(EndLine(len(tracks), list(shots)))]))


class StoredMasks(Sequence[RLE]):
    """The n masks of an object in a file of frame lines; one is read whenever it is used.

    It pickles as a tuple of its masks. Raises InputError if the file has become shorter.

    Example:
        >>> from tubelet.formats.frame_lines import FrameRecord, StoredMasks
        >>> issubclass(StoredMasks, Sequence)
        True
    """

    __slots__ = ("_file", "_lengths", "_size", "_starts")

    def __init__(
        self,
        file: OpenFile,
        size: tuple[int, int],
        starts: array[int] | None = None,
        lengths: array[int] | None = None,
    ) -> None:
        self._file = file
        self._size = size
        self._starts = array("q") if starts is None else starts
        self._lengths = array("i") if lengths is None else lengths

    def append(self, start: int, length: int) -> None:
        """Add the mask whose counts are there."""
        self._starts.append(start)
        self._lengths.append(length)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, n: int) -> RLE: ...
    @overload
    def __getitem__(self, n: slice) -> StoredMasks: ...
    def __getitem__(self, n: int | slice) -> RLE | StoredMasks:
        if isinstance(n, slice):
            return StoredMasks(self._file, self._size, self._starts[n], self._lengths[n])
        counts = self._file.read(self._starts[n], self._lengths[n])
        return RLE(self._size, counts.replace(b"\\\\", b"\\"))

    def __reduce__(self) -> tuple[type[tuple[RLE, ...]], tuple[tuple[RLE, ...]]]:
        return tuple, (tuple(self),)


def frame_lines_path(path: str | Path) -> Path:
    """A path for frame lines. Raises ConfigError if it does not end in .jsonl.

    Example:
        >>> from tubelet.formats.frame_lines import frame_lines_path
        >>> frame_lines_path("film.jsonl").name
        'film.jsonl'
    """
    path = as_path(path, "results")
    if path.suffix != SUFFIX:
        raise ConfigError(f"results: expected a file that ends in {SUFFIX}, got {path.name!r}")
    return path


def write(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write finished predictions, one after another; the file appears whole or not at all.

    Tracks that share their masks, as the pairs of `top` do, are written once.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats import frame_lines
        >>> prediction = tubelet.Prediction(video="dog", size=(4, 6), length=2, tracks=(), classes=("dog",))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frame_lines.write(Path(folder, "dog.jsonl"), [prediction])
        ...     print(Path(folder, "dog.jsonl").read_text().splitlines()[-1])
        {"line":"end","tracks":0,"shots":[]}
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        for prediction in predictions:
            file.writelines(_lines(prediction))


def _lines(prediction: Prediction) -> Iterator[bytes]:
    yield _video_line(prediction.video, prediction.size, prediction.length, prediction.classes)

    is_unique = len(set(prediction.ids)) == len(prediction.tracks)
    objects: dict[int, Track] = {}  # by their masks: the first track that has them
    for n, track in enumerate(prediction.tracks):
        objects.setdefault(id(track.rles), track if is_unique else replace(track, id=n))

    stored = replace(prediction, tracks=tuple(objects.values()))
    for t in range(prediction.length):
        seen = stored.in_frame(t)
        tracks = [track for track, _ in seen]
        counts = [rle.counts for _, rle in seen]
        ids = [track.id for track in tracks]
        yield _frame_line(t, ids, [track.label for track in tracks], [track.score for track in tracks], counts)[0]

    for track in prediction.tracks:
        yield _track_line(track, objects[id(track.rles)].id, len(track.entries.frames))
    yield _line(EndLine(len(prediction.tracks), list(prediction.shots)))


def _video_line(name: str, size: tuple[int, int], length: int, classes: Sequence[str]) -> bytes:
    height, width = size
    return _line(VideoLine(plain(name), height, width, length, [plain(label) for label in classes]))


def _frame_line(
    t: int, ids: Sequence[int], labels: Sequence[int], scores: Sequence[float], counts: Sequence[bytes]
) -> tuple[bytes, list[_Place]]:
    """The line, and where in it the counts of each mask are."""
    if not counts:
        return _line(FrameLine(t)), []

    head = _line(FrameLine(t, list(ids), list(labels), [round(score, DIGITS) for score in scores]))
    head = head.removesuffix(b"]}\n") + b'"'
    escaped = [mask.replace(b"\\", b"\\\\") for mask in counts]  # the one symbol of counts that JSON escapes
    starts = accumulate((len(mask) + len(b'","') for mask in escaped[:-1]), initial=len(head))
    places = [_Place(start, len(mask)) for start, mask in zip(starts, escaped, strict=True)]
    return head + b'","'.join(escaped) + b'"]}\n', places


def _track_line(track: Track, object_id: int, num_masks: int) -> bytes:
    """A track that is the object `object_id`, which has so many masks, or a part of it."""
    is_whole = 0 < len(track.entries.frames) == num_masks
    parts = None
    if not is_whole or track.id != object_id:
        runs = [(0, len(track.rles))] if is_whole else _runs(track.entries.frames)
        parts = [(object_id, start, stop) for start, stop in runs]
    return _line(TrackLine(track.id, track.label, float(track.score), track.ignore, parts))


def _runs(frames: np.ndarray) -> list[tuple[int, int]]:
    """Runs of consecutive numbers, as (first, last + 1)."""
    breaks = np.flatnonzero(np.diff(frames) > 1)
    first = frames[np.concatenate([[0], breaks + 1])] if len(frames) else frames
    last = frames[np.concatenate([breaks, [len(frames) - 1]])] if len(frames) else frames
    return list(zip(first.tolist(), (last + 1).tolist(), strict=True))


def _line(content: Line) -> bytes:
    return msgspec.json.encode(content) + b"\n"
