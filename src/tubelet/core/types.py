"""The types that every room shares. Letters: N objects, T frames, K classes, H W pixels, h w any resolution.

Dense on the device: `Clip` (decoded frames) and `Tracks` (objects through frames, truth and prediction alike).
Sparse on the CPU: `Track` (one object, whole video), `Video` (a video at rest), `Prediction` (a model's answer); these
live in `core.records`, which does without torch, and are named again here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Real, UInt8
from torch import Tensor

from tubelet.core import boxes
from tubelet.core.errors import TubeletError
from tubelet.core.records import Prediction as Prediction
from tubelet.core.records import Track as Track
from tubelet.core.records import Video as Video
from tubelet.core.records import VideoSet as VideoSet

Losses = dict[str, Tensor]  # named scalars, already weighted: a training loop only adds them up


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """N objects through T frames, dense. An object that is absent in a frame has an empty mask there."""

    ids: Int[Tensor, "N"]  # one object keeps one id through the whole video
    scores: Float[
        Tensor, "N K"
    ]  # class probabilities; truth is one-hot, a row of zeros is an object to ignore (a crowd)
    # probabilities (0/1 for truth) over the whole unpadded frame, at any resolution
    masks: Real[Tensor, "N T h w"] | Bool[Tensor, "N T h w"]
    index: Int[Tensor, "T"]  # which frames of the video

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.scores) == len(self.masks):
            shapes = f"ids {_shape(self.ids)}, scores {_shape(self.scores)}, masks {_shape(self.masks)}"
            raise TubeletError(f"Tracks disagree on N: {shapes}")
        if self.masks.ndim != 4 or self.masks.shape[1] != len(self.index):
            raise TubeletError(f"Tracks disagree on T: masks {_shape(self.masks)}, index {_shape(self.index)}")

    @property
    def labels(self) -> Int[Tensor, "N"]:
        """The best class of each object."""
        return self.scores.argmax(1)

    @property
    def confidence(self) -> Float[Tensor, "N"]:
        """The probability of the best class."""
        return self.scores.amax(1)

    @property
    def binary(self) -> Bool[Tensor, "N T h w"]:
        """Masks thresholded at one half."""
        return self.masks if self.masks.dtype == torch.bool else self.masks > 0.5

    @property
    def boxes(self) -> Float[Tensor, "N T 4"]:
        """Tight boxes of the masks, in cells of their resolution; zeros where absent."""
        return boxes.from_masks(self.binary)

    @property
    def present(self) -> Bool[Tensor, "N T"]:
        """Where each object has at least one pixel."""
        return self.binary.flatten(2).any(2)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Tracks(scores {_shape(self.scores)}, masks {_shape(self.masks)} {_kind(self.masks)})"

    def __getitem__(self, keep: Tensor | slice) -> Tracks:
        """A choice of objects, by mask, indices or slice."""
        return replace(self, ids=self.ids[keep], scores=self.scores[keep], masks=self.masks[keep])

    def at(self, frames: Tensor | slice) -> Tracks:
        """A choice of frames, by position within `index`."""
        return replace(self, masks=self.masks[:, frames], index=self.index[frames])

    def to(self, device: torch.device | str) -> Tracks:
        """The same on another device."""
        moved = (t.to(device) for t in (self.ids, self.scores, self.masks, self.index))
        return Tracks(**dict(zip(("ids", "scores", "masks", "index"), moved, strict=True)))

    @classmethod
    def cat(cls, parts: Sequence[Tracks]) -> Tracks:
        """Objects of several Tracks over the same frames, one after another."""
        if any(not torch.equal(part.index, parts[0].index) for part in parts):
            raise TubeletError("Tracks.cat expects parts over the same frames")
        return cls(
            ids=torch.cat([p.ids for p in parts]),
            scores=torch.cat([p.scores for p in parts]),
            masks=torch.cat([p.masks for p in parts]),
            index=parts[0].index,
        )

    @classmethod
    def empty(cls, index: Tensor, num_classes: int, size: tuple[int, int]) -> Tracks:
        """No objects over the frames `index`, at the resolution `size` (height, width)."""
        device = index.device
        return cls(
            ids=torch.zeros(0, dtype=torch.int64, device=device),
            scores=torch.zeros(0, num_classes, device=device),
            masks=torch.zeros(0, len(index), *size, device=device),
            index=index,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """T decoded frames of one video, RGB, at their own size. Only frames with `key` are to be predicted.

    All frames belong to one shot: what reads a video (inference/reading.py) ends a clip where a cut is.
    """

    frames: UInt8[Tensor, "T 3 H W"]
    index: Int[Tensor, "T"]  # which frames of the video
    key: Bool[Tensor, "T"]  # predict these; the others are context (reference, support)
    tracks: Tracks | None = None  # truth over the same T frames
    shot: int = 0  # of the video, counted from 0; always 0 where nobody looked for cuts

    def __post_init__(self) -> None:
        if not len(self.frames) == len(self.index) == len(self.key):
            shapes = f"frames {_shape(self.frames)}, index {_shape(self.index)}, key {_shape(self.key)}"
            raise TubeletError(f"Clip disagrees on T: {shapes}")
        if self.tracks is not None and not torch.equal(self.tracks.index, self.index):
            raise TubeletError("Clip and its tracks disagree on which frames they hold")

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        return f"Clip(frames {_shape(self.frames)} {_kind(self.frames)}, tracks={self.tracks})"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.frames.shape[-2], self.frames.shape[-1]

    def up_to(self, frame: int) -> Clip:
        """Without the key frames after a frame of the video; context stays."""
        rows = (~self.key | (self.index <= frame)).nonzero()[:, 0]
        tracks = None if self.tracks is None else self.tracks.at(rows)
        return replace(self, frames=self.frames[rows], index=self.index[rows], key=self.key[rows], tracks=tracks)

    def to(self, device: torch.device | str) -> Clip:
        """The same on another device."""
        tracks = None if self.tracks is None else self.tracks.to(device)
        frames, index, key = (tensor.to(device) for tensor in (self.frames, self.index, self.key))
        return replace(self, frames=frames, index=index, key=key, tracks=tracks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame of a stream with its objects, at the frame's own size: what a user's loop receives."""

    index: int
    time: float  # seconds
    image: UInt8[Tensor, "3 H W"]
    ids: Int[Tensor, "N"]
    labels: Int[Tensor, "N"]
    scores: Float[Tensor, "N"]
    masks: Bool[Tensor, "N H W"]
    boxes: Float[Tensor, "N 4"]  # tight, from the masks
    names: tuple[str, ...]  # class name of each object
    shot: int = 0  # of the video, counted from 0

    def __repr__(self) -> str:
        height, width = self.image.shape[1:]
        return f"Frame(index={self.index}, time={self.time:.6g}, size=({height}, {width}), names={list(self.names)})"


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
