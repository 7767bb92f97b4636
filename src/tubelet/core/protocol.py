"""What the program asks of a model: three methods, a way to read the video, its class names, and its traits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

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

MOST_FRAMES = 1_000_000  # of a clip; a window that asks for more asks for memory that is nowhere
MOST_CONTEXT = 256  # frames beside a clip


class Window(Config):
    """How a model wants to read a video; a frame is a clip of length one, so all ways of reading are one loop."""

    length: int | None = Field(default=1, ge=1, le=MOST_FRAMES)  # None = the whole video
    stride: int = Field(default=1, ge=1, le=MOST_FRAMES)  # frames from one clip's start to the next one's
    context: int = Field(default=0, ge=0, le=MOST_CONTEXT)  # support frames taken elsewhere in the video
    causal: bool = False  # context from the past only
    spread: bool = False  # pick `length` frames evenly over the video, interpolate the rest

    @model_validator(mode="after")
    def _no_gaps(self) -> Window:
        if self.length is not None and self.stride > self.length:
            raise ValueError(f"a stride of {self.stride} leaves out frames between clips of length {self.length}")
        return self


class Traits(Config):
    """What the loop should know of a model beyond its three methods; a name or value that does not exist is an error.

    `vote` says how a track gets its class and score. "majority": what most of its frames say, and the mean of their
    scores; "score": the class of the largest summed score; "mean": the best of its class probabilities, averaged over
    the windows that hold it, and that probability. `average` is what overlapping windows agree on: the mean of their
    mask probabilities, or that of their logits, which are then also what is resized.
    """

    vote: Vote = "majority"
    average: Average = "probabilities"
    min_frames: int = Field(default=1, ge=1)  # tracks that appear in fewer frames are dropped
    semantic: bool = False  # says of every pixel which class it shows: a SemanticSegmenter
    attention: bool = False  # has attention modules, and tells where they look: an Attentive
    resizable: bool = False  # reads a clip at any size, then settles what is in it: a Resizable


@runtime_checkable
class VideoSegmenter(Protocol[State]):
    """A video instance segmentation model. State lives outside the module and is handed back at each step.

    A class that names this one as its base takes over the values that stand here.
    """

    window: Window
    classes: tuple[str, ...]
    traits: Traits = Traits()
    precision: torch.dtype = torch.float32  # of the network in `step`; training has its own setting

    def forward(self, clips: list[Clip]) -> Losses:
        """Training losses of a batch; distributed training goes through here."""
        ...

    def start(self) -> State:
        """The state before the first frame of a video."""
        ...

    def step(self, state: State, clip: Clip) -> tuple[State, Tracks]:
        """Objects of the clip's key frames; ids are global to the video."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """Where one attention module looks in one frame when it decides about one point of another."""

    name: str  # of the module, in the paper's words
    frame: int  # of the video, that is looked at
    values: Float[Tensor, "h w"]  # weights, not negative, over the whole unpadded frame at any resolution


@runtime_checkable
class Attentive(VideoSegmenter[State], Protocol[State]):
    """A segmenter that can tell where it looks; `traits.attention` says so."""

    def attend(self, state: State, clip: Clip, frame: int, at: tuple[float, float]) -> list[Glance]:
        """Glances from the point `at` (x, y in pixels) of a key frame of the clip, given the state before the clip."""
        ...


@runtime_checkable
class SemanticSegmenter(VideoSegmenter[State], Protocol[State]):
    """A segmenter that says of every pixel, not only of objects, which class it shows; `traits.semantic` says so."""

    def semantic_maps(self, clip: Clip) -> Tensor:
        """Class probabilities of the clip's key frames, [T, K + 1, h, w], background first."""
        ...


def check_model(model: object) -> None:
    """Raise ConfigError unless this is a model that `predict` can run."""
    if isinstance(model, str):
        raise ConfigError(f"model: expected a model, got a name; load it first: tubelet.load({short(model)})")
    if not isinstance(model, VideoSegmenter):
        expected = "expected a model with forward, start, step, window and classes, such as tubelet.load gives"
        raise ConfigError(f"model: {expected}, got {short(model)}")


def check_clips(clips: object) -> None:
    """Raise ConfigError unless these are the clips that a model's `forward` learns from."""
    if not isinstance(clips, list) or not clips or not all(isinstance(clip, Clip) for clip in clips):
        expected = "expected a list of Clip, to learn from; to find objects use tubelet.predict(model, frames)"
        raise ConfigError(f"a model called: {expected}, got {short(clips)}")


def check_window(window: object) -> None:
    """Raise ConfigError unless this is a window, or None."""
    if window is not None and not isinstance(window, Window):
        raise ConfigError(f"window: expected a tubelet.Window or None, got {short(window)}")
