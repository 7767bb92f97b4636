"""Videos and their tracks at rest: sparse, on the CPU, and free of torch, so that files are read in a blink.

`core.types` names these again beside the dense types; import them from there, unless starting fast matters.
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
    Videos = Sequence  # lazy: a checker that looks at an item would make that video

MOST_SHOWN = 3  # of a list, where it is printed

AnyPrediction = TypeVar("AnyPrediction", bound="Prediction")  # not Self: the shape checker cannot read it here


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One object through a whole video, sparse."""

    id: int
    label: int  # position in the class list
    score: float  # 0..1; truth has 1
    rles: Sequence[RLE | None]  # one per frame of the video, None where absent; a tuple, or a packed Tube
    ignore: bool = False  # a crowd: neither reward nor punishment for finding it
    area: float | None = None  # mean pixels over the frames that hold it, where an annotation states them

    def __repr__(self) -> str:
        about = f"id={self.id}, label={self.label}, score={self.score:.3g}"
        frames = f"{sum(rle is not None for rle in self.rles)} of {len(self.rles)}"
        return f"Track({about}, frames={frames}{', ignore' if self.ignore else ''})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A video at rest. `frames[t]` decodes one frame, uint8 [3, H, W]; iterating decodes in order without seeking."""

    id: str
    size: tuple[int, int]  # height, width
    frames: Sequence[Tensor]
    fps: float = 25.0  # mean frame rate
    times: tuple[float, ...] | None = None  # seconds of each frame where the source tells; else t / fps
    tracks: tuple[Track, ...] | None = None  # truth
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel over its height, as shown; sizes and masks count pixels

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        tracks = "unknown" if self.tracks is None else len(self.tracks)
        return f"Video(id={self.id!r}, size={self.size}, frames={len(self)}, fps={self.fps:.6g}, tracks={tracks})"

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width in square pixels, at which a player shows it."""
        height, width = self.size
        return height, max(round(width * self.pixel_aspect), 1)

    def time(self, t: int) -> float:
        """Seconds from the start at which frame t is shown."""
        return self.times[t] if self.times is not None else t / self.fps


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSet:
    """A data set: videos and the names of the classes that their tracks' labels point into."""

    videos: Videos
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"VideoSet(videos={len(self.videos)}, classes={_listed(self.classes)})"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one video."""

    video: str
    size: tuple[int, int]  # height, width
    length: int  # frames
    tracks: tuple[Track, ...]
    classes: tuple[str, ...] = field(default=())
    shots: tuple[int, ...] = ()  # the first frame of each shot, beginning with 0; empty where nobody looked for cuts

    def __repr__(self) -> str:
        about = f"video={self.video!r}, size={self.size}, frames={self.length}"
        return f"{type(self).__name__}({about}, tracks={_listed(self.tracks)})"

    def above(self: AnyPrediction, threshold: float) -> AnyPrediction:
        """Only the tracks whose score reaches the threshold."""
        threshold = fraction("threshold", threshold)
        return replace(self, tracks=tuple(t for t in self.tracks if t.score >= threshold))


def _listed(things: Sequence[object]) -> str:
    """The first few, and how many there are."""
    shown = [repr(thing) for thing in things[:MOST_SHOWN]]
    more = [f"... {len(things)} in all"] if len(things) > MOST_SHOWN else []
    return f"[{', '.join(shown + more)}]"
