"""The machinery under the geometric transforms: matrices, one warp for frames and one for masks.

Matrices act on continuous pixel coordinates (x, y, 1), in which a frame covers [0, width] x [0, height].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from tubelet.core.types import Clip, Tracks

MEAN_COLOUR = (124, 116, 104)  # ImageNet's mean: zero after the model's normalisation
Border = Literal["mean", "reflect"]
Size = tuple[int, int]
Range = tuple[float, float]


class Placement(NamedTuple):
    """A way from source to output: matrices float64 [T, 3, 3], and the output's (height, width)."""

    matrices: np.ndarray
    size: Size


def warp(clip: Clip, placement: Placement, border: Border = "mean", min_left: float = 0.2) -> Clip:
    """The clip with every frame and mask moved by its matrix."""
    tracks = None if clip.tracks is None else warp_tracks(clip.tracks, placement, min_left)
    return replace(clip, frames=warp_frames(clip.frames, placement, border), tracks=tracks)


def warp_frames(frames: Tensor, placement: Placement, border: Border = "mean") -> Tensor:
    """uint8 [T, 3, H, W] -> uint8 [T, 3, h, w], bilinear; strong shrinking averages first, so that nothing aliases."""
    moved = np.empty((len(frames), *placement.size, 3), np.uint8)
    mode = cv2.BORDER_REFLECT if border == "reflect" else cv2.BORDER_CONSTANT
    for image, matrix, out in zip(as_images(frames), placement.matrices, moved, strict=True):
        warp_image(image, matrix, placement.size, mode=mode, fill=MEAN_COLOUR, out=out)
    return as_frames(moved)


def warp_image(
    image: np.ndarray,
    matrix: np.ndarray,
    size: Size,
    *,
    mode: int = cv2.BORDER_CONSTANT,
    fill: tuple[int, int, int] = (0, 0, 0),
    out: np.ndarray | None = None,
) -> np.ndarray:
    """An image [H, W, 3] or plane [H, W] moved by a matrix [3, 3], bilinear; outside is `fill`."""
    image, matrix = _shrink_first(image, matrix)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, _inverse(matrix), size[::-1], out, flags, mode, fill)


def warp_tracks(tracks: Tracks, placement: Placement, min_left: float = 0.2) -> Tracks:
    """Masks moved by nearest neighbour; an object with less than `min_left` of it inside is absent in that frame."""
    masks = tracks.binary.numpy()
    moved = warp_masks(masks, placement)
    gains = np.abs(np.linalg.det(placement.matrices[:, :2, :2]))
    enough = min_left * areas(masks) * gains
    keep_present(moved, areas(moved) >= np.maximum(enough, 1))
    return drop_absent(replace(tracks, masks=torch.from_numpy(moved)))


def warp_masks(masks: np.ndarray, placement: Placement) -> np.ndarray:
    """bool [N, T, H, W] -> bool [N, T, h, w]. Thirty-two masks travel as the bits of one 4-channel image."""
    height, width = placement.size
    num, length = masks.shape[:2]
    moved = np.empty((num, length, height, width), bool)
    still = masks.strides[1] == 0  # one image repeated: pack its masks once
    for first in range(0, num, 32):
        for t in range(length):
            if t == 0 or not still:
                packed = _pack(masks[first : first + 32, t])
            flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            bits = cv2.warpAffine(packed, _inverse(placement.matrices[t]), (width, height), flags=flags)
            _unpack(bits.reshape(height, width, -1), moved[first : first + 32, t])
    return moved


def areas(masks: np.ndarray) -> np.ndarray:
    """Pixel counts of bool masks [N, T, H, W], int64 [N, T]."""
    # count_nonzero of one bool mask at a time is ten times faster than a sum over axes
    return np.array([[np.count_nonzero(mask) for mask in track] for track in masks], np.int64).reshape(masks.shape[:2])


def keep_present(masks: np.ndarray, present: np.ndarray) -> None:
    """Empty, in place, the masks [N, T, H, W] that are not `present` [N, T]."""
    for n, t in zip(*np.nonzero(~present), strict=True):
        masks[n, t] = False


def drop_absent(tracks: Tracks) -> Tracks:
    """Without the objects that have no pixel in any frame."""
    present = areas(tracks.binary.numpy()).any(1)
    return tracks if present.all() else tracks[torch.from_numpy(present)]


def as_images(frames: Tensor) -> np.ndarray:
    """uint8 [T, 3, H, W] -> numpy [T, H, W, 3], a view where the memory already lies so."""
    images = frames.permute(0, 2, 3, 1).numpy()
    return images if images[0].flags.c_contiguous else np.ascontiguousarray(images)


def as_frames(images: np.ndarray) -> Tensor:
    """numpy [T, H, W, 3] -> uint8 [T, 3, H, W] as a view: channels last in memory, which OpenCV and CPUs want."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def scaling(across: float, down: float) -> np.ndarray:
    """A scaling matrix [3, 3]."""
    return np.diag([across, down, 1.0])


def translation(x: float, y: float) -> np.ndarray:
    """A translation matrix [3, 3]."""
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def affine(*, angles: np.ndarray, shears: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Rotation x horizontal shear x scale, angles in radians, each [T] -> float64 [T, 2, 2]."""
    cos, sin, tan = np.cos(angles), np.sin(angles), np.tan(shears)
    rows = [[cos, cos * tan - sin], [sin, sin * tan + cos]]
    linear: np.ndarray = np.moveaxis(np.array(rows), -1, 0) * scales[:, None, None]
    return linear


def about(linear: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Matrices [T, 3, 3] that apply `linear` [T, 2, 2] about the point `source` and set it down on `target` [T, 2]."""
    matrices = repeat(np.eye(3), len(linear))
    matrices[:, :2, :2] = linear
    matrices[:, :2, 2] = target - linear @ source
    return matrices


def repeat(matrix: np.ndarray, length: int) -> np.ndarray:
    """The same matrix for every frame, [length, 3, 3]."""
    return np.repeat(matrix[None], length, 0)


def smooth_path(rng: np.random.Generator, num: int, length: int, frames_per_turn: int = 6) -> np.ndarray:
    """`num` random values per frame in [-1, 1], float64 [length, num].

    Up to two frames are independent; more follow a quadratic B-spline with a random control point every
    `frames_per_turn` frames, which never leaves the range.
    """
    if length <= 2:
        return rng.uniform(-1, 1, (length, num))
    position = np.arange(length) / frames_per_turn + rng.random()
    span = position.astype(int)
    u = (position - span)[:, None]
    points = rng.uniform(-1, 1, (int(span[-1]) + 3, num))
    path: np.ndarray = (
        (1 - u) ** 2 / 2 * points[span] + (0.5 + u - u**2) * points[span + 1] + u**2 / 2 * points[span + 2]
    )
    return path


def log_uniform(rng: np.random.Generator, limits: Range) -> float:
    """One draw whose logarithm is uniform between the logarithms of the limits."""
    return float(np.exp(rng.uniform(*np.log(limits))))


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """OpenCV's form: from output to source, in coordinates whose integers are pixel centres."""
    half = translation(0.5, 0.5)
    inverse: np.ndarray = np.linalg.inv(translation(-0.5, -0.5) @ matrix @ half)
    return inverse[:2]


def _shrink_first(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where one output pixel spans two source pixels or more: average blocks, and move the rest of the way after."""
    spans = 1 / np.maximum(np.linalg.norm(matrix[:2, :2], axis=0), 1e-6)
    across, down = np.maximum(spans.astype(int), 1)
    if across == 1 and down == 1:
        return image, matrix
    height, width = image.shape[:2]
    new = (max(1, round(width / across)), max(1, round(height / down)))
    return cv2.resize(image, new, interpolation=cv2.INTER_AREA), matrix @ scaling(width / new[0], height / new[1])


def _pack(masks: np.ndarray) -> np.ndarray:
    """bool [N, H, W], N <= 32 -> uint8 [H, W, ceil(N / 8)], mask n in bit n % 8 of channel n // 8."""
    channels: list[np.ndarray] = []
    for n, mask in enumerate(masks.view(np.uint8)):
        if n % 8 == 0:
            channels.append(mask.copy(order="K"))  # decoded RLEs lie column by column: stay in their order
        else:
            channels[-1] |= mask << (n % 8)
    return np.ascontiguousarray(channels[0]) if len(channels) == 1 else np.stack(channels, -1)


def _unpack(bits: np.ndarray, out: Sequence[np.ndarray] | np.ndarray) -> None:
    for channel in range(bits.shape[-1]):
        plane = np.ascontiguousarray(bits[..., channel])
        for bit, mask in enumerate(out[8 * channel : 8 * channel + 8]):
            np.not_equal(plane & np.uint8(1 << bit), 0, out=mask)
