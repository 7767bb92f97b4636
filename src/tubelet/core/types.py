"""The data types that all of tubelet shares.

Dense tensors, on any device: `Clip` (decoded frames), `Tracks` (objects in a clip, truth or
prediction) and `Frame` (one frame of a stream with its objects).

Sparse, on the CPU: `Track` (one object in a whole video), `Video`, `VideoSet` and `Prediction`.
They are defined in `core.records`, which does not import torch, and are re-exported here.

Letters: N objects, T frames, K classes, H W pixels, h w any resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Real, UInt8
from torch import Tensor

from tubelet.core import boxes
from tubelet.core.devices import upload
from tubelet.core.errors import TubeletError
from tubelet.core.records import Prediction as Prediction
from tubelet.core.records import Track as Track
from tubelet.core.records import Video as Video
from tubelet.core.records import VideoSet as VideoSet

Losses = dict[str, Tensor]  # named scalars, already weighted; the training loss is their sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """Masks and class scores of N objects in T frames: the truth or a prediction.

    An object that is absent from a frame has an empty mask there. Masks cover the whole unpadded
    frame, at any resolution. Raises TubeletError if the tensors disagree on N or T.

    Example:
        >>> masks = torch.zeros(1, 2, 4, 4)
        >>> masks[0, 0, 1:3, 1:] = 0.9  # absent from the second frame
        >>> scores = torch.tensor([[0.2, 0.8]])
        >>> ids = torch.tensor([7])
        >>> tracks = tubelet.Tracks(ids=ids, scores=scores, masks=masks, index=torch.arange(2))
        >>> tracks.labels, tracks.present
        (tensor([1]), tensor([[ True, False]]))
        >>> tracks.boxes[0, 0]
        tensor([1., 1., 4., 3.])
    """

    ids: Int[Tensor, "N"]  # an object has the same id in the whole video
    # class probabilities; truth is one-hot, and a row of zeros marks an object to ignore (a crowd)
    scores: Float[Tensor, "N K"]
    # probabilities, or 0 and 1 for truth
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
        """The most probable class of each object."""
        return self.scores.argmax(1)

    @property
    def confidence(self) -> Float[Tensor, "N"]:
        """The probability of the most probable class."""
        return self.scores.amax(1)

    @property
    def binary(self) -> Bool[Tensor, "N T h w"]:
        """Masks thresholded at one half."""
        return self.masks if self.masks.dtype == torch.bool else self.masks > 0.5

    @property
    def boxes(self) -> Float[Tensor, "N T 4"]:
        """Tight boxes of the masks, in pixels of the masks' resolution; zeros where absent."""
        return boxes.from_masks(self.binary)

    @property
    def present(self) -> Bool[Tensor, "N T"]:
        """True where an object has at least one pixel in a frame."""
        return self.binary.flatten(2).any(2)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Tracks(scores {_shape(self.scores)}, masks {_shape(self.masks)} {_kind(self.masks)})"

    def __getitem__(self, objects: Tensor | slice) -> Tracks:
        """Select objects by a boolean mask, indices or a slice."""
        return replace(
            self,
            ids=self.ids[objects],
            scores=self.scores[objects],
            masks=self.masks[objects],
        )

    def at(self, frames: Tensor | slice) -> Tracks:
        """Select frames by their positions in `index`."""
        return replace(self, masks=self.masks[:, frames], index=self.index[frames])

    def to(self, device: torch.device | str) -> Tracks:
        """Return a copy on another device; only `index` stays on the CPU, as that of a clip."""
        return replace(self, ids=self.ids.to(device), scores=self.scores.to(device), masks=self.masks.to(device))

    @classmethod
    def cat(cls, parts: Sequence[Tracks]) -> Tracks:
        """Concatenate the objects of several Tracks.

        Raises TubeletError if they are not over the same frames.
        """
        if any(not torch.equal(part.index, parts[0].index) for part in parts):
            raise TubeletError("Tracks.cat expects parts over the same frames")
        return cls(
            ids=torch.cat([part.ids for part in parts]),
            scores=torch.cat([part.scores for part in parts]),
            masks=torch.cat([part.masks for part in parts]),
            index=parts[0].index,
        )

    @classmethod
    def empty(cls, index: Tensor, num_classes: int, size: tuple[int, int]) -> Tracks:
        """Return Tracks without objects.

        Args:
            index: Which frames of the video, int64 [T].
            num_classes: Number of columns of `scores`.
            size: Height and width of the masks.
        """
        device = index.device
        return cls(
            ids=torch.zeros(0, dtype=torch.int64, device=device),
            scores=torch.zeros(0, num_classes, device=device),
            masks=torch.zeros(0, len(index), *size, device=device),
            index=index,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """T decoded RGB frames of one video, in the video's own resolution.

    Frames with `key` are to be predicted; the others are context. All frames belong to one shot:
    `inference.reading` ends a clip at a cut. Raises TubeletError if the tensors disagree on T.

    Example:
        >>> frames = torch.zeros(3, 3, 4, 6, dtype=torch.uint8)
        >>> key = torch.tensor([False, True, True])
        >>> clip = tubelet.Clip(frames=frames, index=torch.tensor([0, 8, 9]), key=key)
        >>> len(clip), clip.size
        (3, (4, 6))
    """

    frames: UInt8[Tensor, "T 3 H W"]
    index: Int[Tensor, "T"]  # which frames of the video
    key: Bool[Tensor, "T"]  # True: predict this frame; False: context (reference, support)
    tracks: Tracks | None = None  # truth for the same T frames
    shot: int = 0  # number of the shot in the video; always 0 without cut detection

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
        """Return the clip without key frames later than frame number `frame` of the video.

        All context frames stay.
        """
        return self.at(~self.key | (self.index <= frame))

    def to(self, device: torch.device | str) -> Clip:
        """Return a copy with frames and tracks on another device.

        `index` and `key` stay on the CPU, which decides by them what to compute: read from a GPU,
        each would be a wait for all that it has still to do.
        """
        tracks = None if self.tracks is None else self.tracks.to(device)
        return replace(self, frames=upload(self.frames, torch.device(device)), tracks=tracks)

    def at(self, rows: Tensor) -> Clip:
        """Select frames by a boolean mask or by their positions, as a view where all are selected.

        Example:
            >>> frames = torch.zeros(2, 3, 4, 6, dtype=torch.uint8)
            >>> clip = tubelet.Clip(frames=frames, index=torch.tensor([4, 5]), key=torch.ones(2, dtype=torch.bool))
            >>> clip.at(clip.index > 4).index
            tensor([5])
        """
        if rows.dtype == torch.bool and bool(rows.all()):
            return self
        return replace(
            self,
            frames=self.frames[rows],
            index=self.index[rows],
            key=self.key[rows],
            tracks=None if self.tracks is None else self.tracks.at(rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame of a stream with its N objects, in the frame's own resolution.

    `tubelet.stream` yields these.

    Example:
        >>> frame = tubelet.Frame(
        ...     index=0,
        ...     time=0.0,
        ...     image=torch.zeros(3, 4, 6, dtype=torch.uint8),
        ...     ids=torch.tensor([1]),
        ...     labels=torch.tensor([0]),
        ...     scores=torch.tensor([0.9]),
        ...     masks=torch.ones(1, 4, 6, dtype=torch.bool),
        ...     boxes=torch.tensor([[0.0, 0.0, 6.0, 4.0]]),
        ...     names=("dog",),
        ... )
        >>> frame
        Frame(index=0, time=0, size=(4, 6), names=['dog'])
    """

    index: int  # frame number in the video
    time: float  # seconds from the start of the video
    image: UInt8[Tensor, "3 H W"]
    ids: Int[Tensor, "N"]
    labels: Int[Tensor, "N"]
    scores: Float[Tensor, "N"]
    masks: Bool[Tensor, "N H W"]
    boxes: Float[Tensor, "N 4"]  # tight boxes of the masks
    names: tuple[str, ...]  # class name of each object
    shot: int = 0  # number of the shot in the video

    def __repr__(self) -> str:
        height, width = self.image.shape[1:]
        return f"Frame(index={self.index}, time={self.time:.6g}, size=({height}, {width}), names={list(self.names)})"


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
