"""Where does a new shot begin? Hard cuts, found frame by frame from the colours and the layout of a thumbnail.

A frame begins a shot where, against each of the last few frames of the present one,
- its colours differ: half the L1 distance of two RGB histograms, 0 (equal) to 1 (disjoint), is above `colours`;
- its layout differs: 1 minus the correlation of grey blocks, each moved to where it fits best, is above `layout`;
- and both together, sqrt(colours x layout), are above `rise` times their mean over the frames before.

Correlation does not see brightness or contrast, so a flash or a fade changes colours alone; blocks may move, so a fast
pan or a shaken camera changes the layout alone, and raises the mean. A frame without contrast (black, a white flash)
belongs to the shot before it and is not compared with: a dip to black within one scene is no cut, between two scenes it
is one. A dissolve changes too little from frame to frame to be found.

The state is a few thumbnails, passed in and handed back. Nothing is drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field
from torch import Tensor

from tubelet.core.config import Config

SAMPLED = (72, 128)  # rows and columns of pixels that are read of a frame, about
COLOURS = (36, 64)  # rows and columns of the thumbnail whose colours are counted
LAYOUT = (27, 48)  # of the one whose blocks are looked for
BLOCK = (9, 12)  # rows and columns of a block
REACH = 2  # rows and columns that it may have moved
LEVELS = 8  # of each colour in the histogram


class ShotConfig(Config):
    """When a frame begins a new shot; the defaults were chosen on edited videos (benchmarks/bench_shots.py)."""

    colours: float = Field(default=0.3, ge=0, le=1)
    layout: float = Field(default=0.38, ge=0, le=2)
    rise: float = Field(default=2.0, ge=0)  # over the mean of the frames before
    recent: int = Field(default=3, ge=1)  # frames that a new one is compared with; more than a flash lasts
    memory: int = Field(default=8, ge=1)  # frames that the mean is taken over
    contrast: float = Field(default=8.0, ge=0)  # standard deviation of grey values, of 255; below it nothing is seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """What is kept of a frame."""

    histogram: np.ndarray  # float32 [LEVELS ** 3], sums to 1
    blocks: np.ndarray  # float32 [blocks, pixels], each of mean 0 and norm 1
    nearby: np.ndarray  # float32 [blocks, moves, pixels]: the same, at every position that a block may have come from


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotState:
    """The shot of the last frame read, counted from 0, and what the next frame is compared with."""

    shot: int = 0
    recent: tuple[Thumbnail, ...] = ()  # of this shot, the oldest first
    distances: tuple[float, ...] = ()


def next_shot(state: ShotState, frame: Tensor, config: ShotConfig) -> ShotState:
    """The state after one more frame, uint8 [3, H, W] RGB; `state.shot` tells whether a shot has begun.

    Frames come in order, each once.

    >>> import torch
    >>> night, day = torch.zeros(2, 3, 90, 160, dtype=torch.uint8)
    >>> night[:, 40:60], day[:, :, ::2] = 60, 250
    >>> state = ShotState()
    >>> shots = []
    >>> for frame in (night, night, day, day):
    ...     state = next_shot(state, frame, ShotConfig())
    ...     shots.append(state.shot)
    >>> shots
    [0, 0, 1, 1]
    """
    pixels = _shrunk(frame)
    grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), LAYOUT[::-1], interpolation=cv2.INTER_AREA)
    if grey.std() < config.contrast:
        return state
    thumbnail = _thumbnail(pixels, grey.astype(np.float32))
    if not state.recent:
        return replace(state, recent=(thumbnail,))

    differences = [(_colour_distance(past, thumbnail), _layout_distance(past, thumbnail)) for past in state.recent]
    colours, layout = min(differences, key=lambda pair: pair[0] * pair[1])
    distance = float(np.sqrt(colours * layout))
    usual = float(np.mean(state.distances)) if state.distances else 0.0
    if colours > config.colours and layout > config.layout and distance > config.rise * usual:
        return ShotState(shot=state.shot + 1, recent=(thumbnail,))
    return replace(
        state,
        recent=(*state.recent, thumbnail)[-config.recent :],
        distances=(*state.distances, distance)[-config.memory :],
    )


def _shrunk(frame: Tensor) -> np.ndarray:
    """uint8 [*COLOURS, 3] of a frame [3, H, W], from a few pixels of each cell."""
    rows = max(frame.shape[1] // SAMPLED[0], 1)
    columns = max(frame.shape[2] // SAMPLED[1], 1)
    sampled = np.ascontiguousarray(frame[:, ::rows, ::columns].cpu().numpy().transpose(1, 2, 0))
    return cv2.resize(sampled, COLOURS[::-1], interpolation=cv2.INTER_AREA)


def _thumbnail(pixels: np.ndarray, grey: np.ndarray) -> Thumbnail:
    padded = np.pad(grey, REACH, mode="edge")
    positions = sliding_window_view(padded, BLOCK)  # [rows, columns, *BLOCK]: a block at every position
    moves = sliding_window_view(positions, (2 * REACH + 1,) * 2, axis=(0, 1))
    moves = moves[:: BLOCK[0], :: BLOCK[1]]  # [block rows, block columns, *BLOCK, moves down, moves across]
    nearby = np.moveaxis(moves, (4, 5), (2, 3)).reshape(-1, (2 * REACH + 1) ** 2, BLOCK[0] * BLOCK[1])
    nearby = nearby - nearby.mean(2, keepdims=True)
    nearby /= np.maximum(np.linalg.norm(nearby, axis=2, keepdims=True), 1.0)
    return Thumbnail(histogram=_histogram(pixels), blocks=nearby[:, nearby.shape[1] // 2], nearby=nearby)


def _histogram(pixels: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(pixels.astype(np.int32) * LEVELS // 256, 2, 0)
    counts = np.bincount(((red * LEVELS + green) * LEVELS + blue).ravel(), minlength=LEVELS**3)
    return (counts / counts.sum()).astype(np.float32)


def _colour_distance(past: Thumbnail, present: Thumbnail) -> float:
    return float(np.abs(past.histogram - present.histogram).sum()) / 2


def _layout_distance(past: Thumbnail, present: Thumbnail) -> float:
    """1 minus the mean over blocks of their best correlation with the past around the same position."""
    correlations = (past.nearby @ present.blocks[:, :, None])[..., 0]  # [blocks, moves]
    return max(1 - float(correlations.max(1).mean()), 0.0)
