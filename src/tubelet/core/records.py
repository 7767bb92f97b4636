"""Sparse records of videos and their tracks, without torch, so that commands on files start fast.

`core.types` re-exports them beside the dense types. Import them from there, unless start-up time
matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

from tubelet.core.arguments import fraction
from tubelet.core.masks import RLE

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

    Example:
        >>> from tubelet.core import masks
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> tubelet.Track(id=1, label=0, score=0.9, rles=(rle, None))
        Track(id=1, label=0, score=0.9, frames=1 of 2)
    """

    id: int
    label: int  # position in the class list
    score: float  # 0 to 1; truth has 1
    # one per frame of the video, None where absent; a tuple or a `masks.packed.Tube`
    rles: Sequence[RLE | None]
    ignore: bool = False  # a crowd: metrics neither reward nor punish predicting it
    area: float | None = None  # mean pixels over the object's frames, if the annotation gives areas

    def __repr__(self) -> str:
        about = f"id={self.id}, label={self.label}, score={self.score:.3g}"
        frames = f"{sum(rle is not None for rle in self.rles)} of {len(self.rles)}"
        return f"Track({about}, frames={frames}{', ignore' if self.ignore else ''})"


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

    Example:
        >>> track = tubelet.Track(id=1, label=0, score=0.4, rles=(None, None))
        >>> size = (4, 6)
        >>> prediction = tubelet.Prediction(video="dog", size=size, length=2, tracks=(track,))
        >>> len(prediction.above(0.5).tracks)
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

    def above(self: AnyPrediction, threshold: float) -> AnyPrediction:
        """Return a copy with only the tracks whose score is at least `threshold`.

        Raises ConfigError if `threshold` is not from 0 to 1.
        """
        threshold = fraction("threshold", threshold)
        tracks = tuple(track for track in self.tracks if track.score >= threshold)
        return replace(self, tracks=tracks)


def _abbreviated(items: Sequence[object]) -> str:
    """The first few items and the total number."""
    shown = [repr(item) for item in items[:MOST_SHOWN]]
    if len(items) > MOST_SHOWN:
        shown.append(f"... {len(items)} in all")
    return f"[{', '.join(shown)}]"
