"""Which frames of a video make a clip: one config per way of the papers.

`sampler.sample(video, rng, current)` draws a `Sample`; `current` names the frame that the clip is about, for epochs
that visit frames instead of videos. A frame is valid where at least one object that is not ignored has a pixel;
samplers that need objects draw among the valid frames.

At test there is nothing to draw: `sampler.every(video)` lists the clips of a whole video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from tubelet.core import masks
from tubelet.core.config import Config
from tubelet.core.types import Video


class Sample(NamedTuple):
    """Frames to decode, in clip order; which of them are to be predicted; and the numbers they get in the clip."""

    indices: tuple[int, ...]
    key: tuple[bool, ...]
    times: tuple[int, ...] | None = None  # default: the indices themselves


class Repeat(Config):
    """One frame again and again: the start of a pseudo-video, which a transform then sets in motion."""

    kind: Literal["repeat"] = "repeat"
    frames: int = Field(default=2, ge=1)
    context: int = Field(default=0, ge=0)  # the first so many are context, not to be predicted

    @model_validator(mode="after")
    def _a_frame_is_left(self) -> Repeat:
        if self.context >= self.frames:
            raise ValueError(f"context {self.context} leaves none of {self.frames} frames to predict")
        return self

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """Any frame of the video, or `current`."""
        t = int(rng.integers(len(video))) if current is None else current
        key = tuple(n >= self.context for n in range(self.frames))
        return Sample((t,) * self.frames, key, tuple(range(self.frames)))


class RandomPair(Config):
    """A frame and a reference drawn among all other valid frames, in either direction (MaskTrack R-CNN).

    The clip is (reference, current). A video with one valid frame pairs it with itself.
    """

    kind: Literal["random_pair"] = "random_pair"
    context: Literal[0, 1] = 1  # 1: the reference is context; 0: both frames are to be predicted

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """The pair, distinct wherever two valid frames exist."""
        valid = valid_frames(video)
        current = choose(valid, len(video), rng) if current is None else current
        others = valid[valid != current]
        reference = int(rng.choice(others)) if len(others) else current
        return Sample((reference, current), (self.context == 0, True))


class OrderedPair(Config):
    """A frame and the nearest earlier valid frame (ObjProp); the first takes the nearest later one.

    The clip is (reference, current).
    """

    kind: Literal["ordered_pair"] = "ordered_pair"
    context: Literal[0, 1] = 1

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """The pair, distinct wherever two valid frames exist."""
        valid = valid_frames(video)
        current = choose(valid, len(video), rng) if current is None else current
        earlier, later = valid[valid < current], valid[valid > current]
        reference = int(earlier[-1]) if len(earlier) else int(later[0]) if len(later) else current
        return Sample((reference, current), (self.context == 0, True))


class SupportReference(Config):
    """Support frames, a reference and the current frame, all of one video (CompFeat).

    The clip is (supports..., reference, current). Supports are drawn at random or spread evenly over the video; in
    short videos frames are repeated, which attention does not notice.
    """

    kind: Literal["support_reference"] = "support_reference"
    supports: int = Field(default=2, ge=1)
    spread: Literal["random", "uniform"] = "random"

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """Supports other than current and reference wherever the video has frames enough."""
        reference, current = RandomPair().sample(video, rng, current).indices
        if self.spread == "uniform":
            supports = evenly(len(video), self.supports)
        else:
            others = np.setdiff1d(np.arange(len(video)), (reference, current))
            pool = others if len(others) else np.arange(len(video))
            supports = tuple(int(t) for t in rng.choice(pool, self.supports, replace=len(pool) < self.supports))
        return Sample((*supports, reference, current), (False,) * (self.supports + 1) + (True,))


class NearbyPair(Config):
    """A random frame and others at most `reach` frames away, sorted in time (Mask2Former-VIS, IFR: 2 frames within 20).

    Frames differ wherever the video has enough of them near by; a video of one frame is an image, for a transform to
    set in motion. `frames` is the length of the clip.
    """

    kind: Literal["nearby"] = "nearby"
    frames: int = Field(default=2, ge=1)
    reach: int = Field(default=20, ge=1)

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """Sorted frames, all to be predicted."""
        if len(video) == 1:
            return Repeat(frames=self.frames).sample(video, rng, 0)
        current = int(rng.integers(len(video))) if current is None else current
        around = np.arange(max(0, current - self.reach), min(len(video), current + self.reach + 1))
        others = around[around != current]
        needed = self.frames - 1
        if len(others) < needed:
            others = np.append(others, np.full(needed - len(others), current))
        chosen = rng.choice(others, needed, replace=False) if needed else np.zeros(0, np.int64)
        return _all_key(sorted(int(t) for t in (current, *chosen)))


class DroppedClip(Config):
    """Many frames with one and the same stride, after dropping a few consecutive ones (tag-based system).

    A stride is drawn from `stride`, as large as the video allows, then a start, then a gap of `drop` frames somewhere
    inside. Videos that are too short are played to and fro; the repeated frames are no key frames, so that losses leave
    them out.
    """

    kind: Literal["dropped"] = "dropped"
    frames: int = Field(default=32, ge=2)
    drop: tuple[int, int] = (1, 5)  # least and most consecutive frames left out
    stride: tuple[int, int] = (1, 5)

    @model_validator(mode="after")
    def _rising(self) -> DroppedClip:
        if not (0 <= self.drop[0] <= self.drop[1] and 1 <= self.stride[0] <= self.stride[1]):
            raise ValueError(f"drop and stride must be rising, from 0 and 1, got {self.drop} and {self.stride}")
        return self

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """A clip that holds `current` where one is named and its place allows."""
        drop = int(rng.integers(self.drop[0], self.drop[1] + 1))
        drop = max(0, min(drop, len(video) - self.frames))
        longest = max(1, (len(video) - drop - 1) // (self.frames - 1))
        stride = min(int(rng.integers(self.stride[0], self.stride[1] + 1)), longest)
        gap = int(rng.integers(1, self.frames))  # the frames are dropped before this one
        offsets = np.arange(self.frames) * stride + drop * (np.arange(self.frames) >= gap)
        slack = len(video) - 1 - int(offsets[-1])
        if slack < 0:
            return to_and_fro(len(video), self.frames)
        low, high = (0, slack) if current is None else (max(0, current - int(offsets[-1])), min(slack, current))
        return _all_key((int(rng.integers(low, high + 1)) + offsets).tolist())


class WholeVideo(Config):
    """Every frame, or the first `most` of an evenly thinned video."""

    kind: Literal["whole"] = "whole"
    most: int | None = Field(default=None, ge=1)

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """The same for every draw."""
        return next(self.every(video))

    def every(self, video: Video) -> Iterator[Sample]:
        """One clip."""
        most = len(video) if self.most is None else min(self.most, len(video))
        yield _all_key(evenly(len(video), most))


class Uniform(Config):
    """At test: so many frames spread evenly over the video (tag-based: 32); short videos repeat frames."""

    kind: Literal["uniform"] = "uniform"
    frames: int = Field(default=32, ge=1)

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """The same for every draw."""
        return next(self.every(video))

    def every(self, video: Video) -> Iterator[Sample]:
        """One clip."""
        yield _all_key(evenly(len(video), self.frames))


class PastOnly(Config):
    """At test, online: each frame with supports spread evenly over the frames before it; the first supports itself."""

    kind: Literal["past"] = "past"
    supports: int = Field(default=4, ge=1)

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """The clip of `current`, or of any frame."""
        t = int(rng.integers(len(video))) if current is None else current
        supports = evenly(t, self.supports) if t else (0,) * self.supports
        return Sample((*supports, t), (False,) * self.supports + (True,))

    def every(self, video: Video) -> Iterator[Sample]:
        """One clip per frame, in order."""
        rng = np.random.default_rng(0)  # asked for, but not drawn from
        for t in range(len(video)):
            yield self.sample(video, rng, t)


class Windows(Config):
    """At test, per clip: windows of `frames`, `stride` apart; the last is moved back to end with the video (IFC)."""

    kind: Literal["windows"] = "windows"
    frames: int = Field(default=2, ge=1)
    stride: int = Field(default=1, ge=1)

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """One of the windows, or the first that holds `current`."""
        windows = list(self.every(video))
        if current is None:
            return windows[int(rng.integers(len(windows)))]
        return next((window for window in windows if current in window.indices), windows[-1])

    def every(self, video: Video) -> Iterator[Sample]:
        """All windows; a video shorter than one is a window of its own."""
        last = max(0, len(video) - self.frames)
        starts = [*range(0, last, self.stride), last]
        for start in starts:
            yield _all_key(range(start, min(start + self.frames, len(video))))


AnySampler = Annotated[
    Repeat
    | RandomPair
    | OrderedPair
    | SupportReference
    | NearbyPair
    | DroppedClip
    | WholeVideo
    | Uniform
    | PastOnly
    | Windows,
    Field(discriminator="kind"),
]


def valid_frames(video: Video) -> np.ndarray:
    """Frames with at least one pixel of an object that is not ignored, int64, ascending."""
    valid = np.zeros(len(video), bool)
    for track in video.tracks or ():
        held = [(t, mask) for t, mask in enumerate(track.rles) if mask is not None and not track.ignore]
        if held:
            valid[[t for t, _ in held]] |= masks.areas([mask for _, mask in held]) > 0
    return np.flatnonzero(valid)


def choose(valid: np.ndarray, length: int, rng: np.random.Generator) -> int:
    """One of the valid frames, or any of the video's where none is valid."""
    return int(rng.choice(valid)) if len(valid) else int(rng.integers(length))


def evenly(length: int, number: int) -> tuple[int, ...]:
    """round(linspace(0, length - 1, number)): the first and the last frame are among them."""
    return tuple(int(t) for t in np.round(np.linspace(0, length - 1, number)))


def to_and_fro(length: int, number: int) -> Sample:
    """A short video played forwards and backwards until it is long enough; only the first pass is to be predicted."""
    turn = [*range(length), *range(length - 2, 0, -1)]
    indices = tuple(turn[n % len(turn)] for n in range(number))
    return Sample(indices, tuple(n < length for n in range(number)), tuple(range(number)))


def _all_key(indices: Sequence[int] | range) -> Sample:
    return Sample(tuple(indices), (True,) * len(indices))
