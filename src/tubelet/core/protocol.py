"""What the program asks of a model: three methods, a way to read the video, and its class names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from tubelet.core.config import Config
from tubelet.core.types import Clip, Losses, Tracks

State = TypeVar("State")


class Window(Config):
    """How a model wants to read a video; a frame is a clip of length one, so all ways of reading are one loop."""

    length: int | None = Field(default=1, ge=1)  # None = the whole video
    stride: int = Field(default=1, ge=1)  # frames from one clip's start to the next one's
    context: int = Field(default=0, ge=0)  # support frames taken elsewhere in the video
    causal: bool = False  # context from the past only
    spread: bool = False  # pick `length` frames evenly over the video, interpolate the rest

    @model_validator(mode="after")
    def _no_gaps(self) -> Window:
        if self.length is not None and self.stride > self.length:
            raise ValueError(f"a stride of {self.stride} leaves out frames between clips of length {self.length}")
        return self


@runtime_checkable
class VideoSegmenter(Protocol[State]):
    """A video instance segmentation model. State lives outside the module and is handed back at each step."""

    window: Window
    classes: tuple[str, ...]

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
    """A segmenter that can tell where it looks. One without attention modules gives no glances."""

    def attend(self, state: State, clip: Clip, frame: int, at: tuple[float, float]) -> list[Glance]:
        """Glances from the point `at` (x, y in pixels) of a key frame of the clip, given the state before the clip."""
        ...
