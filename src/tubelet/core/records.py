"""Sparse records of videos and their tracks, without torch, so that commands on files start fast.

`core.types` re-exports them beside the dense types. Import them from there, unless start-up time
matters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex, TypeVar

import numpy as np

from tubelet.core import masks
from tubelet.core.arguments import class_labels, fraction, not_negative, short, whole_between
from tubelet.core.errors import ConfigError
from tubelet.core.masks import RLE
from tubelet.core.masks.sparse import SparseMasks, sparse

if TYPE_CHECKING:
    from torch import Tensor

    Videos = Sequence["Video"]
else:
    Tensor = Any  # importing torch takes seconds; only the type checker needs it here
    Videos = Sequence  # may be lazy: a type checker that reads an item would open that video

MOST_SHOWN = 3  # items of a list in a repr

AnyPrediction = TypeVar("AnyPrediction", bound="Prediction")  # beartype cannot resolve Self here


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One object in a whole video, with one RLE mask per frame.

    `frames`, `times`, `boxes` and `areas` have one row for each frame in which the object appears.
    Only these frames take memory.

    Example:
        >>> from tubelet.core import masks
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> track = tubelet.Track(id=1, label=0, score=0.9, rles=(rle, None), name="dog", video_times=(0.0, 0.04))
        >>> track
        Track(id=1, label=0, name='dog', score=0.9, frames=1 of 2)
        >>> track.frames, track.times, track.boxes
        (array([0]), array([0.]), array([[0., 0., 6., 4.]]))
        >>> track.mask(0).shape, int(track.mask(0).sum()), int(track.mask(1).sum())
        ((4, 6), 24, 0)
    """

    id: int
    label: int  # position in the class list
    score: float  # 0 to 1; truth has 1
    rles: Sequence[RLE | None]  # one per frame of the video, None where absent; stored as `SparseMasks`
    ignore: bool = False  # a crowd: metrics neither reward nor punish predicting it
    area: float | None = None  # mean pixels over the object's frames, if the annotation gives areas
    # what `predict` adds, for reading: the class name, and the time of each frame of the video in seconds
    name: str = field(default="", compare=False)
    video_times: Sequence[float] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rles", sparse(self.rles))

    def __repr__(self) -> str:
        name = f", name={self.name!r}" if self.name else ""
        about = f"id={self.id}, label={self.label}{name}, score={self.score:.3g}"
        frames = f"{len(self.entries.frames)} of {len(self.rles)}"
        return f"Track({about}, frames={frames}{', ignore' if self.ignore else ''})"

    @property
    def frames(self) -> np.ndarray:
        """Numbers of the n frames in which the object appears, int64 [n]."""
        return self.entries.frames.astype(np.int64)

    @property
    def entries(self) -> SparseMasks:
        """`rles` as (frame, mask) pairs: `entries.items()`, `entries.frames` and `entries.present`."""
        return sparse(self.rles)

    @property
    def times(self) -> np.ndarray:
        """Seconds of those frames, float64 [n]. Raises ConfigError if the times of the video are unknown."""
        return self._known_times()[self.frames]

    @property
    def seconds(self) -> float:
        """How long the object is seen: its number of frames times the mean duration of a frame.

        Raises ConfigError if the times of the video are unknown.
        """
        times = self._known_times()
        if len(times) < 2:
            return 0.0
        duration = (times[-1] - times[0]) / (len(times) - 1)
        return float(len(self.entries.frames) * duration)

    @property
    def boxes(self) -> np.ndarray:
        """Tight boxes of the masks (x1, y1, x2, y2) in pixels, float64 [n, 4]."""
        return masks.boxes(self.entries.present)

    @property
    def areas(self) -> np.ndarray:
        """Pixels of the masks, float64 [n]."""
        return masks.areas(self.entries.present)

    def mask(self, t: SupportsIndex) -> np.ndarray:
        """The mask in frame t, bool [H, W]; all False where the object is absent.

        Raises ConfigError if there is no such frame, or if the object has no mask in any frame.
        """
        t = whole_between("a frame", t, 0, len(self.rles) - 1)
        rle = self.rles[t]
        if rle is not None:
            return np.ascontiguousarray(masks.decode([rle])[0]).view(bool)

        present = self.entries.present
        if not present:
            raise ConfigError(f"track {self.id} has no mask in any frame")
        return np.zeros(present[0].size, bool)

    def _known_times(self) -> np.ndarray:
        if self.video_times is None:
            raise ConfigError(f"the times of track {self.id} are unknown; tracks of `tubelet.predict` have them")
        return np.asarray(self.video_times, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One video: its frames, frame times and, if known, its true tracks.

    `frames[t]` decodes frame t, uint8 [3, H, W]; iterating over `frames` decodes in order, without
    seeking.

    Example:
        >>> frames = list(torch.zeros(10, 3, 4, 6, dtype=torch.uint8))
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=frames, fps=5.0)
        >>> video
        Video(id='dog', size=(4, 6), frames=10, fps=5, tracks=unknown)
        >>> video.time(1)
        0.2
    """

    id: str
    size: tuple[int, int]  # height, width
    frames: Sequence[Tensor]
    fps: float = 25.0  # mean frame rate
    times: tuple[float, ...] | None = None  # seconds of each frame; None: frame t is at t / fps
    tracks: tuple[Track, ...] | None = None  # truth
    # displayed width of a pixel over its height; sizes and masks count stored pixels
    pixel_aspect: Fraction = Fraction(1)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        tracks = "unknown" if self.tracks is None else len(self.tracks)
        return f"Video(id={self.id!r}, size={self.size}, frames={len(self)}, fps={self.fps:.6g}, tracks={tracks})"

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width at which a player shows the video, in square pixels."""
        height, width = self.size
        return height, max(round(width * self.pixel_aspect), 1)

    def time(self, t: int) -> float:
        """Return when frame t is shown, in seconds from the start."""
        return self.times[t] if self.times is not None else t / self.fps


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSet:
    """A data set: videos and their class names.

    Example:
        >>> from tubelet.core.types import VideoSet
        >>> VideoSet(videos=(), classes=("dog", "cat", "bird", "fish"))
        VideoSet(videos=0, classes=['dog', 'cat', 'bird', ... 4 in all])
    """

    videos: Videos
    classes: tuple[str, ...]  # a track's label is a position in this list

    def __repr__(self) -> str:
        return f"VideoSet(videos={len(self.videos)}, classes={_abbreviated(self.classes)})"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A model's tracks for one video.

    `len(prediction)` is the number of tracks, a loop goes over them, and `prediction[3]` is the one
    whose id is 3: the number that the overlay, the table and predictions.json show. By position:
    `prediction.tracks[0]`.

    Example:
        >>> track = tubelet.Track(id=3, label=0, score=0.4, rles=(None, None))
        >>> size = (4, 6)
        >>> prediction = tubelet.Prediction(video="dog", size=size, length=2, tracks=(track,))
        >>> len(prediction), [track.id for track in prediction], prediction[3].score, 3 in prediction
        (1, [3], 0.4, True)
        >>> len(prediction.above(0.5))
        0
    """

    video: str
    size: tuple[int, int]  # height, width
    length: int  # number of frames
    tracks: tuple[Track, ...]
    classes: tuple[str, ...] = field(default=())
    shots: tuple[int, ...] = ()  # first frame of each shot, the first is 0; empty without cut detection

    def __repr__(self) -> str:
        about = f"video={self.video!r}, size={self.size}, frames={self.length}"
        return f"{type(self).__name__}({about}, tracks={_abbreviated(self.tracks)})"

    def __len__(self) -> int:
        return len(self.tracks)

    def __bool__(self) -> bool:
        return True  # a prediction without tracks is a result, too

    def __iter__(self) -> Iterator[Track]:
        return iter(self.tracks)

    def __contains__(self, item: object) -> bool:
        """Whether there is a track with this id, or this track."""
        return item in self.ids or item in self.tracks

    def __getitem__(self, id: SupportsIndex) -> Track:
        """The track with this id; of several (with `top`), the best. Raises ConfigError if there is none."""
        for track in self.tracks:
            if track.id == id and not isinstance(id, bool):
                return track
        ids = short(list(dict.fromkeys(self.ids)))
        raise ConfigError(f"no track with the id {short(id)}; ids: {ids} (tracks[0] is the first)")

    @property
    def ids(self) -> tuple[int, ...]:
        """The tracks' ids, in their order."""
        return tuple(track.id for track in self.tracks)

    def in_frame(self, t: int) -> list[tuple[Track, RLE]]:
        """The tracks that appear in frame t, each with its mask there, in their order.

        Example:
            >>> from tubelet.core import masks
            >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
            >>> track = tubelet.Track(id=3, label=0, score=0.4, rles=(None, rle))
            >>> prediction = tubelet.Prediction(video="dog", size=(4, 6), length=2, tracks=(track,))
            >>> [(track.id, rle.size) for track, rle in prediction.in_frame(1)], prediction.in_frame(0)
            ([(3, (4, 6))], [])
        """
        begin, end = self._appearances.frames.searchsorted(np.array([t, t + 1], np.int32)).tolist()
        numbers = self._appearances.tracks[begin:end].tolist()
        rows = self._appearances.rows[begin:end].tolist()
        return [(self.tracks[n], self.tracks[n].entries.present[row]) for n, row in zip(numbers, rows, strict=True)]

    @cached_property
    def _appearances(self) -> _Appearances:
        return _appearances([track.entries for track in self.tracks])

    def filter(
        self: AnyPrediction,
        *,
        classes: Collection[str] | None = None,
        ids: Collection[int] | None = None,
        min_score: float = 0.0,
        min_seconds: float = 0.0,
        min_frames: int = 0,
    ) -> AnyPrediction:
        """Return a copy with only the tracks that fulfil all conditions.

        Args:
            classes: Class names, such as ["person", "dog"].
            ids: Track ids.
            min_score: From 0 to 1.
            min_seconds: How long the object is seen at least; see `Track.seconds`.
            min_frames: In how many frames it is seen at least.

        Raises:
            ConfigError: for an unknown class, with the nearest name, or `min_seconds` where the times of
                the video are unknown.

        Example:
            >>> track = tubelet.Track(id=3, label=0, score=0.4, rles=(None, None))
            >>> prediction = tubelet.Prediction(
            ...     video="pets", size=(4, 6), length=2, tracks=(track,), classes=("dog", "cat")
            ... )
            >>> len(prediction.filter(classes=["dog"])), len(prediction.filter(classes=["cat"]))
            (1, 0)
        """
        labels = None if classes is None else class_labels(classes, self.classes)
        min_score = fraction("min_score", min_score)
        min_seconds = not_negative("min_seconds", min_seconds)
        min_frames = whole_between("min_frames", min_frames, 0)

        def passes(track: Track) -> bool:
            return (
                (labels is None or track.label in labels)
                and (ids is None or track.id in ids)
                and track.score >= min_score
                and len(track.entries.frames) >= min_frames
                and (not min_seconds or track.seconds >= min_seconds)
            )

        return replace(self, tracks=tuple(track for track in self.tracks if passes(track)))

    def above(self: AnyPrediction, threshold: float) -> AnyPrediction:
        """Return a copy with only the tracks whose score is at least `threshold`.

        Raises ConfigError if `threshold` is not from 0 to 1.
        """
        threshold = fraction("threshold", threshold)
        tracks = tuple(track for track in self.tracks if track.score >= threshold)
        return replace(self, tracks=tracks)


class _Appearances(NamedTuple):
    """Every (object, frame) of a prediction, by frame; so a frame is found without asking each track."""

    frames: np.ndarray  # int32 [M], ascending
    tracks: np.ndarray  # int32 [M], position of the track
    rows: np.ndarray  # int32 [M], position of the mask among those of its track


def _appearances(entries: Sequence[SparseMasks]) -> _Appearances:
    counts = [len(masks.frames) for masks in entries]
    nothing = np.zeros(0, np.int32)
    frames = np.concatenate([nothing, *(masks.frames for masks in entries)])
    tracks = np.repeat(np.arange(len(entries), dtype=np.int32), counts)
    rows = np.concatenate([nothing, *(np.arange(count, dtype=np.int32) for count in counts)])
    by_frame = np.argsort(frames, kind="stable")
    return _Appearances(frames[by_frame], tracks[by_frame], rows[by_frame])


def _abbreviated(items: Sequence[object]) -> str:
    """The first few items and the total number."""
    shown = [repr(item) for item in items[:MOST_SHOWN]]
    if len(items) > MOST_SHOWN:
        shown.append(f"... {len(items)} in all")
    return f"[{', '.join(shown)}]"
