"""The interface of a model: `forward`, `start` and `step`, its window, class names and traits.

Anything that has them can be trained, run on videos and evaluated by tubelet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeGuard, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from tubelet.core.arguments import short
from tubelet.core.config import Config
from tubelet.core.errors import ConfigError
from tubelet.core.types import Clip, Losses, Tracks

State = TypeVar("State")
Vote = Literal["majority", "score", "mean"]
Average = Literal["probabilities", "logits"]

MOST_FRAMES = 1_000_000  # of a clip; no machine has the memory for more
MOST_CONTEXT = 256  # context frames of a clip


class Window(Config):
    """How a video is split into clips for a model; frame by frame is a length of 1.

    Example:
        >>> tubelet.Window(length=8, stride=4)  # each clip overlaps half of the one before
        Window(length=8, stride=4, context=0, causal=False, spread=False)
    """

    length: int | None = Field(default=1, ge=1, le=MOST_FRAMES)  # frames; None: the whole video
    stride: int = Field(default=1, ge=1, le=MOST_FRAMES)  # frames from one clip's start to the next's
    context: int = Field(default=0, ge=0, le=MOST_CONTEXT)  # support frames from outside the clip
    causal: bool = False  # take context from earlier frames only
    spread: bool = False  # take `length` frames evenly spread over the video, interpolate the others

    @model_validator(mode="after")
    def _no_gaps(self) -> Window:
        if self.length is not None and self.stride > self.length:
            raise ValueError(f"a stride of {self.stride} leaves out frames between clips of length {self.length}")
        return self


class Traits(Config):
    """Options and abilities of a model that inference needs to know.

    `vote` is how a track gets its class and score:

    - "majority": the most frequent class of its frames, and the mean of their scores.
    - "score": the class with the largest sum of scores.
    - "mean": class probabilities averaged over the windows that contain the track; the class with
      the largest mean, and that mean.

    `average` is what overlapping windows average: mask probabilities or mask logits. The same
    quantity is resized to the frame.

    Example:
        >>> from tubelet.core.protocol import Traits
        >>> Traits(vote="mean", min_frames=3).average
        'probabilities'
    """

    vote: Vote = "majority"
    average: Average = "probabilities"
    min_frames: int = Field(default=1, ge=1)  # tracks in fewer frames are dropped
    semantic: bool = False  # the model is a SemanticSegmenter
    attention: bool = False  # the model is an Attentive: it can return its attention weights
    guided: bool = False  # the model is a Guided: it follows objects that are given
    resizable: bool = False  # the model is a Resizable: it supports test-time augmentation


@runtime_checkable
class VideoSegmenter(Protocol[State]):
    """A video instance segmentation model.

    The state of a video is not stored in the model: `start` makes it, `step` takes it and returns
    the next one. A class that inherits from this one gets the default `traits` and `precision`.

    Example:
        >>> from tubelet.core.types import Tracks
        >>> class FindsNothing:
        ...     window = tubelet.Window()
        ...     classes = ("dog",)
        ...     traits = tubelet.VideoSegmenter.traits
        ...     precision = torch.float32
        ...     def forward(self, clips):
        ...         return {}
        ...     def start(self):
        ...         return None
        ...     def step(self, state, clip):
        ...         return state, Tracks.empty(clip.index[clip.key], len(self.classes), clip.size)
        >>> isinstance(FindsNothing(), tubelet.VideoSegmenter)
        True
    """

    window: Window
    classes: tuple[str, ...]
    traits: Traits = Traits()
    precision: torch.dtype = torch.float32  # of the network in `step`; training has its own option

    def forward(self, clips: list[Clip]) -> Losses:
        """Compute the training losses of a batch of clips.

        Distributed training calls the model, and so this method, only.
        """
        ...

    def start(self) -> State:
        """Return the state before the first frame of a video."""
        ...

    def step(self, state: State, clip: Clip) -> tuple[State, Tracks]:
        """Predict the objects in the clip's key frames, and return the next state.

        An object has the same id in all clips of the video.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """The weights of one attention module over one frame, for a query point in another frame.

    Example:
        >>> from tubelet.core.protocol import Glance
        >>> glance = Glance(name="STA", frame=3, values=torch.full((2, 2), 0.25))
        >>> glance.values.sum()
        tensor(1.)
    """

    name: str  # of the module, as the paper calls it
    frame: int  # number of the attended frame in the video
    values: Float[Tensor, "h w"]  # weights >= 0 over the whole unpadded frame, at any resolution


@runtime_checkable
class Attentive(VideoSegmenter[State], Protocol[State]):
    """A model that can return its attention weights; it sets `traits.attention`."""

    def attend(self, state: State, clip: Clip, frame: int, at: tuple[float, float]) -> list[Glance]:
        """Return the attention weights for one query point.

        Args:
            state: The state before the clip.
            clip: The clip that contains the frame.
            frame: Number of a key frame in the video.
            at: The query point (x, y) in pixels of that frame.
        """
        ...


@runtime_checkable
class Guided(VideoSegmenter[State], Protocol[State]):
    """A model that can follow objects that are given in one frame; it sets `traits.guided`."""

    def introduce(self, state: State, clip: Clip, objects: Tracks) -> State:
        """Return the state after a frame in which these objects are.

        Args:
            state: The state before the frame.
            clip: The frame: a clip of length 1.
            objects: The objects, all of them with a mask in it. A row of zeros in their scores is an
                object of unknown class.

        Returns:
            The state. With a fresh one, the objects have the ids 1, 2, ... of their order.
        """
        ...


@runtime_checkable
class Staged(VideoSegmenter[State], Protocol[State]):
    """A model whose `step` starts with work that needs no state.

    So that work can be done for the next clip in a thread, while the current one is finished:
    `step(state, clip)` equals `finish(state, clip, prepare(clip))`. A subclass that replaces `step` alone
    is asked for its whole steps.

    Example:
        >>> from tubelet.core.protocol import Staged
        >>> model = tubelet.load("default", device="cpu", engine="torch")
        >>> frames = torch.zeros(1, 3, 48, 64, dtype=torch.uint8)
        >>> clip = tubelet.Clip(frames=frames, index=torch.arange(1), key=torch.ones(1, dtype=torch.bool))
        >>> isinstance(model, Staged)
        True
        >>> with torch.inference_mode():
        ...     state, tracks = model.finish(model.start(), clip, model.prepare(clip))
        >>> len(tracks), state.time
        (0, 0)
    """

    @property
    def worth_preparing(self) -> bool:
        """Whether it saves time on several cores, as it does where not all of it uses them all."""
        ...

    def prepare(self, clip: Clip) -> Any:
        """Compute what does not depend on the state."""
        ...

    def finish(self, state: State, clip: Clip, prepared: Any) -> tuple[State, Tracks]:
        """Predict the objects in the clip's key frames from what `prepare` has computed of it."""
        ...


def is_staged(model: object) -> TypeGuard[Staged[Any]]:
    """Whether the model's class is `Staged`, and has not replaced `step` alone, which would be passed over.

    The class is asked, not the object: a wrapper that hands on what it lacks to another model is not staged.

    Example:
        >>> from tubelet.core.protocol import is_staged
        >>> is_staged(tubelet.load("default", device="cpu", engine="torch"))
        True
    """
    family = type(model).__mro__

    def age(name: str) -> int:
        """How many classes back a method was written last."""
        return next((n for n, one in enumerate(family) if name in vars(one)), len(family))

    parts = age("prepare"), age("finish")
    return max(parts) < len(family) and age("step") >= min(parts)


@runtime_checkable
class SemanticSegmenter(VideoSegmenter[State], Protocol[State]):
    """A model that can also predict a class for every pixel; it sets `traits.semantic`."""

    def semantic_maps(self, clip: Clip) -> Tensor:
        """Predict class probabilities for the key frames, [T, K + 1, h, w]; channel 0 is background."""
        ...


def check_model(model: object) -> None:
    """Raise ConfigError unless `model` is a model that `predict` can run.

    Example:
        >>> from tubelet.core.protocol import check_model
        >>> check_model("default")
        Traceback (most recent call last):
        ...
        tubelet.core.errors.ConfigError: model: expected a model, got a name; load it first: ...
    """
    if isinstance(model, str):
        raise ConfigError(f"model: expected a model, got a name; load it first: tubelet.load({short(model)})")
    if not isinstance(model, VideoSegmenter):
        expected = "expected a model with forward, start, step, window and classes, such as tubelet.load gives"
        raise ConfigError(f"model: {expected}, got {short(model)}")


def check_clips(clips: object) -> None:
    """Raise ConfigError unless `clips` is a list of clips that a model's `forward` accepts.

    Example:
        >>> from tubelet.core.protocol import check_clips
        >>> check_clips("dog.mp4")
        Traceback (most recent call last):
        ...
        tubelet.core.errors.ConfigError: a model called: expected a list of Clip, to learn from; ...
    """
    if not isinstance(clips, list) or not clips or not all(isinstance(clip, Clip) for clip in clips):
        expected = "expected a list of Clip, to learn from; to find objects use tubelet.predict(model, frames)"
        raise ConfigError(f"a model called: {expected}, got {short(clips)}")


def check_window(window: object) -> None:
    """Raise ConfigError unless `window` is a Window or None.

    Example:
        >>> from tubelet.core.protocol import check_window
        >>> check_window(tubelet.Window(length=8))
    """
    if window is not None and not isinstance(window, Window):
        raise ConfigError(f"window: expected a tubelet.Window or None, got {short(window)}")
