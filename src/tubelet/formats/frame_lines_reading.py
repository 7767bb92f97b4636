"""Read frame lines (`formats.frame_lines`), also those of a run that was ended in the middle.

Lines are read up to the first that is damaged. What comes before it is a result, with one warning.
"""

from __future__ import annotations

import mmap
import warnings
from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tubelet.core.errors import FormatError
from tubelet.core.masks.packed import TrackCounts
from tubelet.core.masks.sparse import FRAME
from tubelet.core.untrusted.documents import decode_json_as
from tubelet.core.untrusted.files import LARGEST
from tubelet.formats.frame_lines import EndLine, FrameLine, Line, TrackLine, VideoLine

BEGINNING = b'{"line":"video"'  # of every file
MOST_MASKS = 1 << 27  # of all tracks of a file: parts may repeat what is stored once


class RecordedTrack(NamedTuple):
    """One track, its masks not checked yet.

    Example:
        >>> from tubelet.core.masks.packed import TrackCounts
        >>> from tubelet.formats.frame_lines_reading import RecordedTrack
        >>> counts = TrackCounts.dense(b"0h0", np.array([3, 0]), (4, 6))
        >>> RecordedTrack(id=3, label=0, score=0.5, ignore=False, counts=counts).counts.length
        2
    """

    id: int
    label: int
    score: float | None
    ignore: bool
    counts: TrackCounts


class RecordedVideo(NamedTuple):
    """The results of one video.

    Example:
        >>> from tubelet.formats.frame_lines_reading import read
        >>> lines = b'{"line":"video","name":"dog","height":4,"width":6,"length":2}\\n{"line":"end","tracks":0}\\n'
        >>> (video,) = read(lines, "dog.jsonl")
        >>> video.name, video.size, video.tracks
        ('dog', (4, 6), [])
    """

    name: str
    size: tuple[int, int]  # height, width
    length: int  # frames
    classes: tuple[str, ...]
    shots: tuple[int, ...]
    tracks: list[RecordedTrack]


class _Damage(Exception):
    """A line that cannot come next; its message says why."""


def are_frame_lines(data: bytes | mmap.mmap) -> bool:
    """Whether a file begins as frame lines do.

    Example:
        >>> from tubelet.formats.frame_lines_reading import are_frame_lines
        >>> are_frame_lines(b'{"line":"video","name":"dog"'), are_frame_lines(b'{"videos":[]}')
        (True, False)
    """
    return bytes(data[: len(BEGINNING)]) == BEGINNING


def read(data: bytes | mmap.mmap, where: str) -> list[RecordedVideo]:
    """The videos of a file, in its order.

    Where it ends early or is damaged, what comes before is read, with a warning. Raises FormatError,
    with `where`, if not even the first line is whole, or if tracks repeat far more than is stored.

    Example:
        >>> import warnings
        >>> from tubelet.formats.frame_lines_reading import read
        >>> lines = [
        ...     b'{"line":"video","name":"dog","height":4,"width":6,"length":2,"classes":["dog"]}',
        ...     b'{"line":"frame","frame":0,"ids":[3],"labels":[0],"scores":[0.5],"counts":["0h0"]}',
        ...     b'{"line":"fra',
        ... ]
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     (video,) = read(b"\\n".join(lines), "dog.jsonl")
        >>> print(caught[0].message)
        dog.jsonl: ends early, after frame 0 of 2; classes and scores are those of the objects until then
        >>> video.tracks[0].id, video.tracks[0].counts.frames
        (3, array([0], dtype=int32))
    """
    videos: list[_VideoInProgress] = []
    try:
        for line in _lines(data):
            if isinstance(line, VideoLine):
                if videos and videos[-1].end is None:
                    raise _Damage("a video begins before the one before has ended")
                videos.append(_VideoInProgress(line))
            elif not videos:
                raise _Damage("no video has begun")
            else:
                videos[-1].add(line)
    except _Damage as damage:
        problem = str(damage)
    else:
        problem = ""

    if not videos:
        raise FormatError(f"{where}: expected a video's line first, {problem or 'found nothing'}")
    _warn(where, videos[-1], problem)
    return _results(videos, where)


def _lines(data: bytes | mmap.mmap) -> Iterator[Line]:
    """Every whole line, parsed. Raises _Damage at the first that is not valid."""
    start = 0
    number = 1
    while start < len(data):
        end = data.find(b"\n", start)
        if end < 0:
            return  # half a line: the run was ended while it was written
        try:
            yield decode_json_as(Line, bytes(data[start:end]), f"line {number}")
        except FormatError as error:
            raise _Damage(str(error)) from None
        start = end + 1
        number += 1


def _warn(where: str, last: _VideoInProgress, problem: str) -> None:
    """One line about what is missing, if anything is."""
    until = f"after frame {last.frame}" if last.frame >= 0 else "before the first frame"
    until += f" of {last.video.length}"
    if problem:
        warnings.warn(f"{where}: damaged {until}, {problem}; what comes before is read", stacklevel=3)
    elif last.end is None:
        message = f"ends early, {until}; classes and scores are those of the objects until then"
        warnings.warn(f"{where}: {message}", stacklevel=3)


class _VideoInProgress:
    """The lines of one video so far."""

    def __init__(self, video: VideoLine) -> None:
        self.video = video
        self.frame = -1  # the last
        self.objects: dict[int, _Object] = {}
        self.tracks: list[TrackLine] = []
        self.end: EndLine | None = None

    def add(self, line: FrameLine | TrackLine | EndLine) -> None:
        if self.end is not None:
            raise _Damage("a line after the end of its video")
        if isinstance(line, FrameLine):
            self._add_frame(line)
        elif isinstance(line, TrackLine):
            self._check_track(line)
            self.tracks.append(line)
        elif line.tracks != len(self.tracks):
            raise _Damage(f"expected {line.tracks} tracks, found {len(self.tracks)}")
        else:
            self.end = line

    def _add_frame(self, line: FrameLine) -> None:
        if self.tracks or not self.frame < line.frame < self.video.length:
            raise _Damage(f"frame {line.frame} cannot come after frame {self.frame} of {self.video.length}")
        if not len(set(line.ids)) == len(line.ids) == len(line.labels) == len(line.scores) == len(line.counts):
            raise _Damage(f"frame {line.frame}: expected an id of its own, a class, a score and a mask for each object")
        if not all(counts and counts.isascii() for counts in line.counts):
            raise _Damage(f"frame {line.frame}: counts are empty or not ASCII")

        for id, label, score, counts in zip(line.ids, line.labels, line.scores, line.counts, strict=True):
            self.objects.setdefault(id, _Object()).add(line.frame, label, score, counts)
        self.frame = line.frame

    def _check_track(self, line: TrackLine) -> None:
        objects = [line.id] if line.parts is None else [id for id, _, _ in line.parts]
        unknown = [id for id in objects if id not in self.objects]
        if unknown:
            raise _Damage(f"track {line.id} is of object {unknown[0]}, which is in no frame")

    def results(self) -> Iterator[RecordedTrack]:
        """The tracks; where the end is missing, every object."""
        size = (self.video.height, self.video.width)
        whole = {id: seen.counts(self.video.length, size) for id, seen in self.objects.items()}
        if self.end is None:
            for id, seen in self.objects.items():
                yield RecordedTrack(id, seen.label, seen.score, False, whole[id])
            return
        for line in self.tracks:
            yield RecordedTrack(line.id, line.label, line.score, line.ignore, self._counts(line, whole))

    def _counts(self, line: TrackLine, whole: dict[int, TrackCounts]) -> TrackCounts:
        if line.parts is None:
            return whole[line.id]
        nothing = _Object().counts(self.video.length, (self.video.height, self.video.width))
        return _joined([_cut(whole[id], start, stop) for id, start, stop in line.parts] or [nothing])


class _Object:
    """The masks of one id, as they come, with its last class and score."""

    def __init__(self) -> None:
        self.label = 0
        self.score: float | None = None
        self._frames = array("i")
        self._lengths = array("q")
        self._data = bytearray()

    def add(self, frame: int, label: int, score: float | None, counts: str) -> None:
        self.label = label
        self.score = score
        self._frames.append(frame)
        self._lengths.append(len(counts))
        self._data += counts.encode("ascii")

    def counts(self, length: int, size: tuple[int, int]) -> TrackCounts:
        frames = np.array(self._frames, FRAME)
        return TrackCounts(bytes(self._data), frames, np.array(self._lengths, np.int64), length, size)


def _cut(whole: TrackCounts, start: int, stop: int) -> TrackCounts:
    """Only the frames from `start` up to `stop`."""
    first, last = whole.frames.searchsorted(np.array([start, stop], FRAME)).tolist()
    if last - first == len(whole.frames):
        return whole
    begin = int(whole.lengths[:first].sum())
    end = begin + int(whole.lengths[first:last].sum())
    return whole._replace(
        data=whole.data[begin:end], frames=whole.frames[first:last], lengths=whole.lengths[first:last]
    )


def _joined(parts: list[TrackCounts]) -> TrackCounts:
    """The masks of all parts, in the order of their frames."""
    if len(parts) == 1:
        return parts[0]
    data = b"".join([part.data for part in parts])
    frames = np.concatenate([part.frames for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    if (np.diff(frames) <= 0).any():
        order = np.argsort(frames, kind="stable")
        bounds = list(pairwise(np.concatenate([[0], np.cumsum(lengths)]).tolist()))
        data = b"".join([data[slice(*bounds[row])] for row in order.tolist()])
        frames = frames[order]
        lengths = lengths[order]
    return parts[0]._replace(data=data, frames=frames, lengths=lengths)


def _results(videos: list[_VideoInProgress], where: str) -> list[RecordedVideo]:
    results = []
    num_masks = 0
    num_bytes = 0
    for reading in videos:
        tracks = []
        for track in reading.results():
            if (np.diff(track.counts.frames) <= 0).any():
                raise FormatError(f"{where}: track {track.id} has two masks in one frame")
            num_masks += len(track.counts.frames)
            num_bytes += len(track.counts.data)
            if num_masks > MOST_MASKS or num_bytes > LARGEST:
                raise FormatError(f"{where}: its tracks have more than {MOST_MASKS} masks or {LARGEST} bytes")
            tracks.append(track)

        video = reading.video
        shots = () if reading.end is None else tuple(reading.end.shots)
        size = (video.height, video.width)
        results.append(RecordedVideo(video.name, size, video.length, tuple(video.classes), shots, tracks))
    return results
