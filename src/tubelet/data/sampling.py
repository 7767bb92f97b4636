"""Choose which frames of a video make a training clip: one config per method of the papers.

`sampler.sample(video, rng, current)` returns a `Sample`. `current` is the frame that the clip must be about, for epochs
that visit frames instead of videos; None draws one.

A frame is valid if at least one object that is not ignored has a pixel in it. Samplers that need objects draw among the
valid frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from tubelet.core import masks
from tubelet.core.config import Config
from tubelet.core.types import Video


class Sample(NamedTuple):
    """The frames of one clip.

    >>> from tubelet.data.sampling import Sample
    >>> reference_and_current = Sample(indices=(3, 7), key=(False, True))
    >>> reference_and_current.indices
    (3, 7)
    """

    indices: tuple[int, ...]  # frames to decode, in the order of the clip
    key: tuple[bool, ...]  # which of them are to be predicted; the others are context
    times: tuple[int, ...] | None = None  # the clip's frame numbers; None: the indices


class Repeat(Config):
    """Repeat one frame: the start of a pseudo-video, to which a transform then adds motion.

    >>> from tubelet.data.sampling import Repeat
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=[None] * 10)
    >>> Repeat(frames=3).sample(video, np.random.default_rng(0), current=4)
    Sample(indices=(4, 4, 4), key=(True, True, True), times=(0, 1, 2))
    """

    kind: Literal["repeat"] = "repeat"
    frames: int = Field(default=2, ge=1)
    context: int = Field(default=0, ge=0)  # number of leading frames that are context, not predicted

    @model_validator(mode="after")
    def _a_frame_is_left(self) -> Repeat:
        if self.context >= self.frames:
            raise ValueError(f"context {self.context} leaves none of {self.frames} frames to predict")
        return self

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """Repeat `current`, or a random frame of the video."""
        t = int(rng.integers(len(video))) if current is None else current
        key = tuple(n >= self.context for n in range(self.frames))
        return Sample((t,) * self.frames, key, tuple(range(self.frames)))


class RandomPair(Config):
    """A frame and a random reference among all other valid frames, earlier or later (MaskTrack R-CNN).

    The clip is (reference, current). A video with one valid frame pairs it with itself.

    >>> from tubelet.data.sampling import RandomPair
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=[None] * 10)
    >>> RandomPair().sample(video, np.random.default_rng(0), current=4).key
    (False, True)
    """

    kind: Literal["random_pair"] = "random_pair"
    context: Literal[0, 1] = 1  # 1: the reference is context; 0: both frames are to be predicted

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """Draw the pair; the two frames differ if the video has two valid frames."""
        valid = valid_frames(video)
        current = choose(valid, len(video), rng) if current is None else current

        others = valid[valid != current]
        reference = int(rng.choice(others)) if len(others) else current
        return Sample((reference, current), (self.context == 0, True))


class OrderedPair(Config):
    """A frame and the nearest earlier valid frame (ObjProp); the first frame takes the nearest later one.

    The clip is (reference, current).

    >>> from tubelet.core import masks
    >>> from tubelet.data.sampling import OrderedPair
    >>> rle = masks.encode(np.ones((1, 8, 8), bool))[0]
    >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=(None, rle, None, None, rle))
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=[None] * 5, tracks=(track,))
    >>> OrderedPair().sample(video, np.random.default_rng(0), current=4).indices
    (1, 4)
    """

    kind: Literal["ordered_pair"] = "ordered_pair"
    context: Literal[0, 1] = 1  # 1: the reference is context; 0: both frames are to be predicted

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """Draw the current frame unless given; the two frames differ if the video has two valid frames."""
        valid = valid_frames(video)
        current = choose(valid, len(video), rng) if current is None else current

        earlier = valid[valid < current]
        later = valid[valid > current]
        if len(earlier):
            reference = int(earlier[-1])
        elif len(later):
            reference = int(later[0])
        else:
            reference = current
        return Sample((reference, current), (self.context == 0, True))


class SupportReference(Config):
    """Support frames, a reference and the current frame of one video (CompFeat).

    The clip is (supports..., reference, current); only the current frame is to be predicted. Supports are drawn at
    random or spread evenly over the video. Short videos repeat frames, which attention does not notice.

    >>> from tubelet.data.sampling import SupportReference
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=[None] * 21)
    >>> sampler = SupportReference(supports=3, spread="uniform")
    >>> sampler.sample(video, np.random.default_rng(0), current=5).indices[:3]
    (0, 10, 20)
    """

    kind: Literal["support_reference"] = "support_reference"
    supports: int = Field(default=2, ge=1)
    spread: Literal["random", "uniform"] = "random"

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """Draw the clip; random supports differ from current and reference if the video is long enough."""
        reference, current = RandomPair().sample(video, rng, current).indices
        if self.spread == "uniform":
            supports = _rounded_linspace(len(video), self.supports)
        else:
            supports = self._random_supports(len(video), reference, current, rng)

        key = (False,) * (self.supports + 1) + (True,)
        return Sample((*supports, reference, current), key)

    def _random_supports(self, length: int, reference: int, current: int, rng: np.random.Generator) -> tuple[int, ...]:
        others = np.setdiff1d(np.arange(length), (reference, current))
        candidates = others if len(others) else np.arange(length)
        drawn = rng.choice(candidates, self.supports, replace=len(candidates) < self.supports)
        return tuple(int(t) for t in drawn)


class NearbyPair(Config):
    """A random frame and others at most `reach` frames away, sorted in time.

    Mask2Former-VIS and IFR take 2 frames within 20. The frames differ if the video has enough of them within reach; a
    video of one frame is an image, which is repeated for a transform to add motion.

    >>> from tubelet.data.sampling import NearbyPair
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=[None] * 3)
    >>> NearbyPair(frames=3, reach=1).sample(video, np.random.default_rng(0), current=1).indices
    (0, 1, 2)
    """

    kind: Literal["nearby"] = "nearby"
    frames: int = Field(default=2, ge=1)  # length of the clip
    reach: int = Field(default=20, ge=1)

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """Draw the frames, sorted, all to be predicted."""
        if len(video) == 1:
            return Repeat(frames=self.frames).sample(video, rng, 0)
        current = int(rng.integers(len(video))) if current is None else current

        first = max(0, current - self.reach)
        end = min(len(video), current + self.reach + 1)
        nearby = np.arange(first, end)
        others = nearby[nearby != current]

        needed = self.frames - 1
        if len(others) < needed:
            others = np.append(others, np.full(needed - len(others), current))
        chosen = rng.choice(others, needed, replace=False) if needed else np.zeros(0, np.int64)
        return _all_key(sorted(int(t) for t in (current, *chosen)))


class DroppedClip(Config):
    """Many frames with a constant stride, except for one gap of a few consecutive frames (tag-based system).

    Draws a stride from `stride`, as large as the video allows, then the position of a gap of `drop` frames, then a
    start. Videos that are too short are played forwards and backwards; the repeated frames are not key frames, so
    losses leave them out.

    >>> from tubelet.data.sampling import DroppedClip
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=[None] * 3)
    >>> DroppedClip(frames=5).sample(video, np.random.default_rng(0))
    Sample(indices=(0, 1, 2, 1, 0), key=(True, True, True, False, False), times=(0, 1, 2, 3, 4))
    """

    kind: Literal["dropped"] = "dropped"
    frames: int = Field(default=32, ge=2)
    drop: tuple[int, int] = (1, 5)  # fewest and most consecutive frames left out
    stride: tuple[int, int] = (1, 5)

    @model_validator(mode="after")
    def _rising(self) -> DroppedClip:
        drop_is_valid = 0 <= self.drop[0] <= self.drop[1]
        stride_is_valid = 1 <= self.stride[0] <= self.stride[1]
        if not (drop_is_valid and stride_is_valid):
            raise ValueError(f"drop and stride must be rising, from 0 and 1, got {self.drop} and {self.stride}")
        return self

    def sample(self, video: Video, rng: np.random.Generator, current: int | None = None) -> Sample:
        """Draw the clip; its range includes `current`, if given, as far as the video's ends allow."""
        offsets = self._offsets(len(video), rng)
        reach = int(offsets[-1])
        latest_start = len(video) - 1 - reach
        if latest_start < 0:
            return to_and_fro(len(video), self.frames)

        low = 0
        high = latest_start
        if current is not None:
            low = max(0, current - reach)
            high = min(latest_start, current)
        start = int(rng.integers(low, high + 1))
        return _all_key((start + offsets).tolist())

    def _offsets(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Frame numbers of the clip relative to its first frame, int64 [frames]."""
        drop = int(rng.integers(self.drop[0], self.drop[1] + 1))
        drop = max(0, min(drop, length - self.frames))

        longest = max(1, (length - drop - 1) // (self.frames - 1))
        stride = min(int(rng.integers(self.stride[0], self.stride[1] + 1)), longest)

        gap = int(rng.integers(1, self.frames))  # the frames are dropped before this position
        positions = np.arange(self.frames)
        return positions * stride + drop * (positions >= gap)


AnySampler = Annotated[
    Repeat | RandomPair | OrderedPair | SupportReference | NearbyPair | DroppedClip,
    Field(discriminator="kind"),
]


def valid_frames(video: Video) -> np.ndarray:
    """Frames in which at least one object that is not ignored has a pixel, int64, ascending.

    >>> from tubelet.core import masks
    >>> from tubelet.data.sampling import valid_frames
    >>> rle = masks.encode(np.ones((1, 8, 8), bool))[0]
    >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=(None, rle, None, rle))
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=[None] * 4, tracks=(track,))
    >>> valid_frames(video).tolist()
    [1, 3]
    """
    valid = np.zeros(len(video), bool)
    for track in video.tracks or ():
        if track.ignore:
            continue
        rles = {t: rle for t, rle in enumerate(track.rles) if rle is not None}
        if rles:
            valid[list(rles)] |= masks.areas(list(rles.values())) > 0
    return np.flatnonzero(valid)


def choose(valid: np.ndarray, length: int, rng: np.random.Generator) -> int:
    """Draw one of the valid frames, or any of the `length` frames if none is valid.

    >>> from tubelet.data.sampling import choose
    >>> choose(np.array([4]), length=10, rng=np.random.default_rng(0))
    4
    """
    return int(rng.choice(valid)) if len(valid) else int(rng.integers(length))


def to_and_fro(length: int, number: int) -> Sample:
    """Play a short video forwards and backwards for `number` frames; only the first pass is to be predicted.

    >>> from tubelet.data.sampling import to_and_fro
    >>> to_and_fro(length=3, number=7).indices
    (0, 1, 2, 1, 0, 1, 2)
    """
    turn = [*range(length), *range(length - 2, 0, -1)]
    indices = tuple(turn[n % len(turn)] for n in range(number))
    key = tuple(n < length for n in range(number))
    return Sample(indices, key, tuple(range(number)))


def _rounded_linspace(length: int, number: int) -> tuple[int, ...]:
    """round(linspace(0, length - 1, number)): repeats frames if `number` exceeds `length`; one alone is frame 0.

    `video.windows.evenly`, for frames that must differ, rounds halves up and takes the middle frame if one is asked
    for.
    """
    return tuple(int(t) for t in np.round(np.linspace(0, length - 1, number)))


def _all_key(indices: Sequence[int]) -> Sample:
    return Sample(tuple(indices), (True,) * len(indices))
