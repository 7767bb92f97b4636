"""Join the windows of a video: average soft masks where windows overlap, resize once, threshold once.

`Stitcher` turns the Tracks of successive windows into finished frames and then drops them. `Traits.average` of the
model decides whether probabilities or logits are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from tubelet.core.protocol import Average
from tubelet.core.types import Tracks
from tubelet.inference.overlaps import WindowOverlaps

THRESHOLD = 0.5  # a pixel belongs to an object where its probability is above
SURE = 1e-6  # probabilities closer to 0 or 1 than this have the logit of this


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A frame that no later window can change, with the objects that have at least one pixel in it."""

    index: int
    ids: np.ndarray  # int64 [N], ascending
    scores: np.ndarray  # class probabilities in this frame, float64 [N, K]
    masks: np.ndarray  # bool [N, H, W], column-major within each mask, as RLE reads it
    boxes: np.ndarray  # tight, half-open (x1, y1, x2, y2), float32 [N, 4]


@dataclass(frozen=True, slots=True)
class _Soft:
    """The sum of the windows' predictions of one object in one frame, at the model's resolution."""

    mask: np.ndarray  # [h, w]
    scores: np.ndarray  # [K]
    count: int

    def plus(self, other: _Soft) -> _Soft:
        if self.mask.shape != other.mask.shape:
            raise ValueError(f"overlapping windows disagree on mask size: {self.mask.shape} and {other.mask.shape}")
        total = np.add(self.mask, other.mask, dtype=np.float32)
        return _Soft(total, self.scores + other.scores, self.count + other.count)

    def mean(self) -> _Soft:
        if self.count == 1:
            return self
        return _Soft(self.mask / self.count, self.scores / self.count, 1)


@dataclass(frozen=True, slots=True)
class _Objects:
    """The summed predictions for one frame, by identity."""

    soft: Mapping[int, _Soft]
    average: Average

    def plus(self, other: _Objects) -> _Objects:
        total = dict(self.soft)
        for identity, soft in other.soft.items():
            total[identity] = total[identity].plus(soft) if identity in total else soft
        return replace(self, soft=total)

    def mean(self) -> _Objects:
        return replace(self, soft={identity: soft.mean() for identity, soft in self.soft.items()})

    def towards(self, later: _Objects, weight: float) -> _Objects:
        return replace(self, soft=_blend(self.soft, later.soft, weight, self.average))


class Stitcher:
    """Joins windows into frames; keeps only the frames that a later window may still change.

    Where several windows predict a frame, an object is the mean over the windows that contain it. A frame without
    prediction (a spread window picks a few) is blended linearly from its neighbours, or copied from the only one.

    >>> stitcher = Stitcher((2, 2))
    >>> ids, index = torch.tensor([7]), torch.tensor([0])
    >>> stitcher.add(Tracks(ids=ids, scores=torch.ones(1, 1), masks=torch.ones(1, 1, 2, 2), index=index))
    >>> [frame.ids.tolist() for frame in stitcher.release(before=1)]
    [[7]]
    """

    def __init__(self, size: tuple[int, int], average: Average = "probabilities") -> None:
        self.size = size  # of the frames: height, width
        self.average: Average = average
        self._overlaps: WindowOverlaps[_Objects] = WindowOverlaps()

    def add(self, tracks: Tracks) -> None:
        """Add one window's objects: masks are probabilities [N, T, h, w] over the whole frame, ids global."""
        masks = _array(tracks.masks)
        scores = _array(tracks.scores).astype(np.float64)
        if self.average == "logits":
            masks = _logits(masks)

        ids = tracks.ids.tolist()
        for column, t in enumerate(tracks.index.tolist()):
            soft = {identity: _Soft(masks[n, column], scores[n], 1) for n, identity in enumerate(ids)}
            self._overlaps.add(t, _Objects(soft, self.average))

    def release(self, before: int) -> Iterator[Finished]:
        """Finish the frames up to, not including, `before`, in order; no later window may contain them."""
        for t, objects in self._overlaps.release(before):
            yield self._finish(t, {} if objects is None else objects.soft)

    def rest(self) -> Iterator[Finished]:
        """Finish the remaining frames, after the last window."""
        for t, objects in self._overlaps.rest():
            yield self._finish(t, {} if objects is None else objects.soft)

    def _finish(self, t: int, frame: Mapping[int, _Soft]) -> Finished:
        """Resize and threshold the masks of one frame; objects without a pixel are left out."""
        threshold = THRESHOLD if self.average == "probabilities" else 0.0
        crops: dict[int, _Crop] = {}
        for identity in sorted(frame):
            crop = _binarise(frame[identity].mask, self.size, threshold)
            if crop is not None:
                crops[identity] = crop

        height, width = self.size
        canvas = np.zeros((len(crops), width, height), bool)
        boxes = np.zeros((len(crops), 4), np.float32)
        for n, crop in enumerate(crops.values()):
            x1, y1, x2, y2 = crop.box
            canvas[n, x1:x2, y1:y2] = crop.pixels
            boxes[n] = crop.box

        scores = [frame[identity].scores for identity in crops]
        return Finished(
            index=t,
            ids=np.array(list(crops), np.int64),
            scores=np.stack(scores) if scores else np.zeros((0, 0)),
            masks=canvas.transpose(0, 2, 1),
            boxes=boxes,
        )


class _Crop(NamedTuple):
    """The pixels of one object within its tight box, transposed: [x2 - x1, y2 - y1]."""

    box: tuple[int, int, int, int]
    pixels: np.ndarray


def _binarise(mask: np.ndarray, size: tuple[int, int], threshold: float) -> _Crop | None:
    """Resize a soft mask [h, w] to the frame and threshold it, computing only pixels that can exceed the threshold.

    A bilinear value is a weighted mean of four cells, so it exceeds the threshold only beside a cell that does.
    Equal to interpolating the whole mask with align_corners=False. None if no pixel exceeds the threshold.
    """
    inside = mask if mask.dtype == bool else mask > threshold
    cells = _tight_box(inside.T)
    if cells is None:
        return None
    left, top, right, bottom = cells
    if mask.shape == size:
        return _Crop(cells, inside[top:bottom, left:right].T)

    rows = _axis(mask.shape[0], size[0])
    columns = _axis(mask.shape[1], size[1])
    y_range = rows.reach(top, bottom)
    x_range = columns.reach(left, right)

    resized_rows = rows.interpolate(mask, y_range)  # [pixels, w]
    pixels = columns.interpolate(resized_rows.T, x_range) > threshold
    tight = _tight_box(pixels)
    if tight is None:
        return None

    x1, y1, x2, y2 = tight
    box = (x_range.start + x1, y_range.start + y1, x_range.start + x2, y_range.start + y2)
    return _Crop(box, pixels[x1:x2, y1:y2])


def _tight_box(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """The tight box (x1, y1, x2, y2) of a transposed binary mask [W, H]; None if it is empty."""
    columns = np.flatnonzero(pixels.any(1))
    if not columns.size:
        return None
    rows = np.flatnonzero(pixels.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class _Axis(NamedTuple):
    """Where each output pixel of one axis reads: between cells `lower` and `upper`, at `weight` of the way."""

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray

    def reach(self, first: int, last: int) -> slice:
        """The output pixels that read any of the cells first..last-1."""
        start = int(np.searchsorted(self.upper, first, "left"))
        end = int(np.searchsorted(self.lower, last, "left"))
        return slice(start, max(start, end))

    def interpolate(self, values: np.ndarray, pixels: slice) -> np.ndarray:
        """Values [cells, *] -> [pixels, *]; float32."""
        low = values[self.lower[pixels]].astype(np.float32, copy=False)
        high = values[self.upper[pixels]].astype(np.float32, copy=False)
        return low + (high - low) * self.weight[pixels, None]


@lru_cache(maxsize=64)
def _axis(cells: int, pixels: int) -> _Axis:
    position = ((np.arange(pixels) + 0.5) * (cells / pixels) - 0.5).clip(0, cells - 1)
    lower = np.floor(position).astype(np.int64)
    upper = np.minimum(lower + 1, cells - 1)
    weight = (position - lower).astype(np.float32)
    return _Axis(lower, upper, weight)


def _blend(
    first: Mapping[int, _Soft], second: Mapping[int, _Soft], weight: float, average: Average
) -> dict[int, _Soft]:
    """Blend each object of two frames, `weight` of the second; an object that is in only one of them fades."""
    blended = {}
    for identity in first.keys() | second.keys():
        predictions: list[tuple[_Soft, float]] = []  # with their weights
        if identity in first:
            predictions.append((first[identity].mean(), 1 - weight))
        if identity in second:
            predictions.append((second[identity].mean(), weight))
        total = sum(share for _, share in predictions)

        mask = np.sum([soft.mask * np.float32(share) for soft, share in predictions], axis=0)
        if len(predictions) == 1 and average == "logits":  # absence is a logit as far below 0 as the prediction's size
            mask -= np.abs(predictions[0][0].mask) * np.float32(1 - total)
        scores = np.sum([soft.scores * (share / total) for soft, share in predictions], axis=0)
        blended[identity] = _Soft(mask, scores, 1)
    return blended


def _logits(masks: np.ndarray) -> np.ndarray:
    probabilities = masks.astype(np.float32).clip(SURE, 1 - SURE)
    return np.log(probabilities) - np.log1p(-probabilities)


def _array(values: torch.Tensor) -> np.ndarray:
    values = values.detach()
    if values.dtype in (torch.bfloat16, torch.float16):
        values = values.float()
    if values.dtype in (torch.uint8, torch.int64, torch.int32):
        values = values > 0
    return values.cpu().numpy()
