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
        both = dict(self.soft)
        for identity, soft in other.soft.items():
            both[identity] = both[identity].plus(soft) if identity in both else soft
        return replace(self, soft=both)

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
        for k, t in enumerate(tracks.index.tolist()):
            soft = {identity: _Soft(masks[n, k], scores[n], 1) for n, identity in enumerate(ids)}
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
        threshold = THRESHOLD if self.average == "probabilities" else 0.0
        cut = {i: _cut(soft.mask, self.size, threshold) for i, soft in frame.items()}
        ids = sorted(i for i, piece in cut.items() if piece is not None)
        height, width = self.size
        canvas = np.zeros((len(ids), width, height), bool)
        boxes = np.zeros((len(ids), 4), np.float32)
        for n, identity in enumerate(ids):
            if piece := cut[identity]:
                x1, y1, x2, y2 = piece.box
                canvas[n, x1:x2, y1:y2] = piece.pixels
                boxes[n] = piece.box
        scores = np.stack([frame[i].scores for i in ids]) if ids else np.zeros((0, 0))
        return Finished(
            index=t, ids=np.array(ids, np.int64), scores=scores, masks=canvas.transpose(0, 2, 1), boxes=boxes
        )


class _Piece(NamedTuple):
    """The pixels of one object within its tight box, transposed: [x2 - x1, y2 - y1]."""

    box: tuple[int, int, int, int]
    pixels: np.ndarray


def _cut(mask: np.ndarray, size: tuple[int, int], threshold: float) -> _Piece | None:
    """Resize a soft mask [h, w] to the frame and cut it at a threshold, touching only where it can come out above.

    A bilinear value is a weighted mean of four cells, so it exceeds the threshold only beside a cell that does.
    Equal to interpolating the whole mask with align_corners=False. None where nothing is left.
    """
    inside = mask if mask.dtype == bool else mask > threshold
    cells = _extent(inside.T)
    if cells is None:
        return None
    if mask.shape == size:
        x1, y1, x2, y2 = cells
        return _Piece(cells, inside[y1:y2, x1:x2].T)
    columns, rows = _axis(mask.shape[1], size[1]), _axis(mask.shape[0], size[0])
    across, down = columns.reach(cells[0], cells[2]), rows.reach(cells[1], cells[3])
    pixels = columns.interpolate(rows.interpolate(mask, down).T, across) > threshold
    tight = _extent(pixels)
    if tight is None:
        return None
    x1, y1, x2, y2 = tight
    box = (across.start + x1, down.start + y1, across.start + x2, down.start + y2)
    return _Piece(box, pixels[x1:x2, y1:y2])


def _extent(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """The tight box of a transposed binary mask [W, H]."""
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
        return slice(start, max(start, int(np.searchsorted(self.lower, last, "left"))))

    def interpolate(self, values: np.ndarray, pixels: slice) -> np.ndarray:
        """Values [cells, *] -> [pixels, *]; float32."""
        low = values[self.lower[pixels]].astype(np.float32, copy=False)
        high = values[self.upper[pixels]].astype(np.float32, copy=False)
        return low + (high - low) * self.weight[pixels, None]


@lru_cache(maxsize=64)
def _axis(cells: int, pixels: int) -> _Axis:
    position = ((np.arange(pixels) + 0.5) * (cells / pixels) - 0.5).clip(0, cells - 1)
    lower = np.floor(position).astype(np.int64)
    return _Axis(lower, np.minimum(lower + 1, cells - 1), (position - lower).astype(np.float32))


def _blend(
    first: Mapping[int, _Soft], second: Mapping[int, _Soft], weight: float, average: Average
) -> dict[int, _Soft]:
    """Blend each object of two frames, `weight` of the second; an object that is in only one of them fades."""
    blended = {}
    for identity in first.keys() | second.keys():
        ends = [(first.get(identity), 1 - weight), (second.get(identity), weight)]
        known = [(soft.mean(), share) for soft, share in ends if soft is not None]
        mask = np.sum([soft.mask * np.float32(share) for soft, share in known], axis=0)
        total = sum(share for _, share in known)
        if len(known) == 1 and average == "logits":  # absent is as far below zero as the other end is from it
            mask -= np.abs(known[0][0].mask) * np.float32(1 - total)
        scores = np.sum([soft.scores * (share / total) for soft, share in known], axis=0)
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
