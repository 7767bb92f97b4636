"""Detect hard cuts, frame by frame, from the colours and the layout of a thumbnail.

A frame begins a new shot if, compared with each of the last few frames of the current shot,

- its colours differ: half the L1 distance of the two RGB histograms, 0 (equal) to 1 (disjoint), is
  above `colours`;
- its layout differs: 1 minus the correlation of grey blocks, each moved to its best position, is
  above `layout`;
- and sqrt(colours x layout) is above `rise` times its mean over the frames before.

Correlation ignores brightness and contrast, so flashes and fades change only the colours. Blocks can
move, so fast pans and shaking cameras change only the layout, and raise the mean.

A frame without contrast (black, a white flash) belongs to the shot before it and is not compared
with later ones: a dip to black in one scene is no cut, between two scenes it is one. Dissolves
change too little from frame to frame to be detected.

The state is a few thumbnails, passed in and returned. Nothing is random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field
from torch import Tensor

from tubelet.core.config import Config

SAMPLED = (72, 128)  # approximate rows and columns of pixels that are sampled from a frame
COLOURS = (36, 64)  # rows and columns of the thumbnail for the histogram
LAYOUT = (27, 48)  # rows and columns of the thumbnail for the blocks
BLOCK = (9, 12)  # rows and columns of a block
REACH = 2  # rows and columns by which a block can have moved
LEVELS = 8  # bins of each colour in the histogram


class ShotConfig(Config):
    """Thresholds of cut detection, chosen on edited videos with benchmarks/bench_shots.py.

    Example:
        >>> from tubelet.tracking.shots import ShotConfig
        >>> ShotConfig(colours=0.5).recent
        3
    """

    colours: float = Field(default=0.3, ge=0, le=1)
    layout: float = Field(default=0.38, ge=0, le=2)
    rise: float = Field(default=2.0, ge=0)  # over the mean of the frames before
    recent: int = Field(default=3, ge=1)  # frames to compare a new one with; longer than a flash
    memory: int = Field(default=8, ge=1)  # frames in the mean
    contrast: float = Field(default=8.0, ge=0)  # minimum standard deviation of grey values, of 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """Features of a frame to compare with other frames.

    Example:
        >>> from tubelet.tracking.shots import ShotConfig, ShotState, next_shot
        >>> frame = torch.arange(160).expand(3, 90, 160).to(torch.uint8)
        >>> (thumbnail,) = next_shot(ShotState(), frame, ShotConfig()).recent
        >>> thumbnail.histogram.shape, thumbnail.blocks.shape, thumbnail.nearby.shape
        ((512,), (12, 108), (12, 25, 108))
    """

    histogram: np.ndarray  # float32 [LEVELS ** 3], sums to 1
    blocks: np.ndarray  # float32 [blocks, pixels], each with mean 0 and norm 1
    nearby: np.ndarray  # float32 [blocks, moves, pixels], the same at all positions up to REACH away


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotState:
    """The state of cut detection after a frame.

    Example:
        >>> from tubelet.tracking.shots import ShotState
        >>> ShotState()  # before the first frame of a video
        ShotState(shot=0, recent=(), distances=())
    """

    shot: int = 0  # number of the frame's shot
    recent: tuple[Thumbnail, ...] = ()  # last frames of the shot, the oldest first
    distances: tuple[float, ...] = ()  # sqrt(colours x layout) of the frames in the mean


def next_shot(state: ShotState, frame: Tensor, config: ShotConfig) -> ShotState:
    """Return the state after the next frame; its `shot` is larger if the frame begins a new shot.

    Args:
        state: The state after the frame before.
        frame: RGB uint8 [3, H, W]; call this once for each frame, in order.
        config: The thresholds.

    Example:
        >>> from tubelet.tracking.shots import ShotConfig, ShotState, next_shot
        >>> night, day = torch.zeros(2, 3, 90, 160, dtype=torch.uint8)
        >>> night[:, 40:60] = 60
        >>> day[:, :, ::2] = 250
        >>> state = ShotState()
        >>> for frame in (night, night, day, day):
        ...     state = next_shot(state, frame, ShotConfig())
        ...     print(state.shot)
        0
        0
        1
        1
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
    mean = float(np.mean(state.distances)) if state.distances else 0.0
    if colours > config.colours and layout > config.layout and distance > config.rise * mean:
        return ShotState(shot=state.shot + 1, recent=(thumbnail,))

    return replace(
        state,
        recent=(*state.recent, thumbnail)[-config.recent :],
        distances=(*state.distances, distance)[-config.memory :],
    )


def _shrunk(frame: Tensor) -> np.ndarray:
    """Downsample a frame [3, H, W] to uint8 [*COLOURS, 3], from a few pixels per cell."""
    rows = max(frame.shape[1] // SAMPLED[0], 1)
    columns = max(frame.shape[2] // SAMPLED[1], 1)
    sampled = np.ascontiguousarray(frame[:, ::rows, ::columns].cpu().numpy().transpose(1, 2, 0))
    return cv2.resize(sampled, COLOURS[::-1], interpolation=cv2.INTER_AREA)


def _thumbnail(pixels: np.ndarray, grey: np.ndarray) -> Thumbnail:
    num_moves = 2 * REACH + 1  # in each direction
    padded = np.pad(grey, REACH, mode="edge")
    positions = sliding_window_view(padded, BLOCK)  # [rows, columns, *BLOCK], a block at every position
    moves = sliding_window_view(positions, (num_moves, num_moves), axis=(0, 1))
    moves = moves[:: BLOCK[0], :: BLOCK[1]]  # [block rows, block columns, *BLOCK, moves down, moves right]
    nearby = np.moveaxis(moves, (4, 5), (2, 3)).reshape(-1, num_moves**2, BLOCK[0] * BLOCK[1])

    nearby = nearby - nearby.mean(2, keepdims=True)
    nearby /= np.maximum(np.linalg.norm(nearby, axis=2, keepdims=True), 1.0)
    unmoved = nearby.shape[1] // 2
    return Thumbnail(histogram=_histogram(pixels), blocks=nearby[:, unmoved], nearby=nearby)


def _histogram(pixels: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(pixels.astype(np.int32) * LEVELS // 256, 2, 0)
    bins = (red * LEVELS + green) * LEVELS + blue
    counts = np.bincount(bins.ravel(), minlength=LEVELS**3)
    return (counts / counts.sum()).astype(np.float32)


def _colour_distance(past: Thumbnail, present: Thumbnail) -> float:
    return float(np.abs(past.histogram - present.histogram).sum()) / 2


def _layout_distance(past: Thumbnail, present: Thumbnail) -> float:
    """1 minus the mean, over blocks, of the best correlation with the past near the same position."""
    correlations = (past.nearby @ present.blocks[:, :, None])[..., 0]  # [blocks, moves]
    return max(1 - float(correlations.max(1).mean()), 0.0)
