"""Warp frames and masks by matrices, and build those matrices: what the geometric transforms are made of.

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

from tubelet.core.spline import spline
from tubelet.core.types import Clip, Tracks

MEAN_COLOUR = (124, 116, 104)  # ImageNet's mean: zero after the model's normalisation
Border = Literal["mean", "reflect"]
Size = tuple[int, int]
Range = tuple[float, float]


class Placement(NamedTuple):
    """Where the pixels of each frame go: one matrix per frame, and the size of the output.

    >>> from tubelet.data.warp import Placement, repeat, scaling
    >>> half = Placement(matrices=repeat(scaling(0.5, 0.5), 3), size=(4, 6))
    >>> half.matrices.shape
    (3, 3, 3)
    """

    matrices: np.ndarray  # float64 [T, 3, 3], from source to output
    size: Size  # of the output: height, width


def warp(clip: Clip, placement: Placement, border: Border = "mean", min_left: float = 0.2) -> Clip:
    """Warp every frame and mask of a clip by its matrix.

    Outside the source is ImageNet's mean colour, or, with `border="reflect"`, the mirrored frame. See `warp_tracks` for
    `min_left`.

    >>> from tubelet.data.warp import Placement, repeat, translation, warp
    >>> frames = torch.arange(12, dtype=torch.uint8).reshape(1, 1, 3, 4).expand(1, 3, 3, 4)
    >>> clip = tubelet.Clip(frames=frames, index=torch.tensor([0]), key=torch.tensor([True]))
    >>> crop = Placement(repeat(translation(-1, -1), 1), size=(2, 2))
    >>> warp(clip, crop).frames[0, 0].tolist()
    [[5, 6], [9, 10]]
    """
    tracks = None if clip.tracks is None else warp_tracks(clip.tracks, placement, min_left)
    return replace(clip, frames=warp_frames(clip.frames, placement, border), tracks=tracks)


def warp_frames(frames: Tensor, placement: Placement, border: Border = "mean") -> Tensor:
    """Warp frames, uint8 [T, 3, H, W] -> uint8 [T, 3, h, w], bilinear; shrinking by 2 or more averages first.

    >>> from tubelet.data.warp import Placement, repeat, scaling, warp_frames
    >>> frames = torch.full((2, 3, 8, 8), 50, dtype=torch.uint8)
    >>> warp_frames(frames, Placement(repeat(scaling(0.5, 0.5), 2), (4, 4))).unique()
    tensor([50], dtype=torch.uint8)
    """
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
    """Warp an image [H, W, 3] or plane [H, W] by a matrix [3, 3], bilinear; outside is `fill`.

    >>> from tubelet.data.warp import translation, warp_image
    >>> plane = np.array([[10, 20], [30, 40]], np.uint8)
    >>> warp_image(plane, translation(1, 0), size=(2, 2)).tolist()
    [[0, 10], [0, 30]]
    """
    image, matrix = _shrink_first(image, matrix)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, _inverse(matrix), size[::-1], out, flags, mode, fill)


def warp_tracks(tracks: Tracks, placement: Placement, min_left: float = 0.2) -> Tracks:
    """Warp masks, nearest neighbour; an object with less than `min_left` of its area inside is absent in that frame.

    Objects that are absent in all frames are dropped.

    >>> from tubelet.data.warp import Placement, repeat, translation, warp_tracks
    >>> index = torch.tensor([0])
    >>> masks = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    >>> tracks = tubelet.Tracks(ids=torch.tensor([7]), scores=torch.ones(1, 1), masks=masks, index=index)
    >>> len(warp_tracks(tracks, Placement(repeat(translation(2, 0), 1), (4, 4))))  # half of it stays inside
    1
    >>> len(warp_tracks(tracks, Placement(repeat(translation(4, 0), 1), (4, 4))))
    0
    """
    masks = tracks.binary.numpy()
    moved = warp_masks(masks, placement)
    gains = np.abs(np.linalg.det(placement.matrices[:, :2, :2]))
    enough = min_left * areas(masks) * gains
    keep_present(moved, areas(moved) >= np.maximum(enough, 1))
    return drop_absent(replace(tracks, masks=torch.from_numpy(moved)))


def warp_masks(masks: np.ndarray, placement: Placement) -> np.ndarray:
    """Warp masks, bool [N, T, H, W] -> bool [N, T, h, w], nearest neighbour.

    Up to 32 masks are warped at once, as the bits of an image of up to 4 channels.

    >>> from tubelet.data.warp import Placement, repeat, translation, warp_masks
    >>> masks = np.eye(3, dtype=bool)[None, None]
    >>> warp_masks(masks, Placement(repeat(translation(1, 0), 1), (3, 3)))[0, 0].astype(int).tolist()
    [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    """
    height, width = placement.size
    num, length = masks.shape[:2]
    moved = np.empty((num, length, height, width), bool)
    is_still = masks.strides[1] == 0  # one image repeated: pack its masks once
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP

    for first in range(0, num, 32):
        for t in range(length):
            if t == 0 or not is_still:
                packed = _pack(masks[first : first + 32, t])
            bits = cv2.warpAffine(packed, _inverse(placement.matrices[t]), (width, height), flags=flags)
            _unpack(bits.reshape(height, width, -1), moved[first : first + 32, t])
    return moved


def areas(masks: np.ndarray) -> np.ndarray:
    """Count the pixels of bool masks [N, T, H, W] -> int64 [N, T].

    >>> from tubelet.data.warp import areas
    >>> areas(np.ones((1, 2, 3, 4), bool)).tolist()
    [[12, 12]]
    """
    # count_nonzero of one bool mask at a time is ten times faster than a sum over axes
    counts = [[np.count_nonzero(mask) for mask in track] for track in masks]
    return np.array(counts, np.int64).reshape(masks.shape[:2])


def keep_present(masks: np.ndarray, present: np.ndarray) -> None:
    """Empty, in place, the masks [N, T, H, W] that are not `present` [N, T].

    >>> from tubelet.data.warp import keep_present
    >>> masks = np.ones((1, 2, 3, 4), bool)
    >>> keep_present(masks, np.array([[True, False]]))
    >>> masks.sum((2, 3)).tolist()
    [[12, 0]]
    """
    for n, t in zip(*np.nonzero(~present), strict=True):
        masks[n, t] = False


def drop_absent(tracks: Tracks) -> Tracks:
    """Drop the objects that have no pixel in any frame.

    >>> from tubelet.data.warp import drop_absent
    >>> masks = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    >>> masks[1, 0, 2, 2] = True
    >>> ids = torch.tensor([7, 8])
    >>> tracks = tubelet.Tracks(ids=ids, scores=torch.ones(2, 1), masks=masks, index=torch.tensor([0]))
    >>> drop_absent(tracks).ids
    tensor([8])
    """
    present = areas(tracks.binary.numpy()).any(1)
    return tracks if present.all() else tracks[torch.from_numpy(present)]


def as_images(frames: Tensor) -> np.ndarray:
    """uint8 tensor [T, 3, H, W] -> contiguous array [T, H, W, 3], without a copy if the memory is channels-last.

    >>> from tubelet.data.warp import as_images
    >>> as_images(torch.zeros(2, 3, 4, 5, dtype=torch.uint8)).shape
    (2, 4, 5, 3)
    """
    images = frames.permute(0, 2, 3, 1).numpy()
    return images if images[0].flags.c_contiguous else np.ascontiguousarray(images)


def as_frames(images: np.ndarray) -> Tensor:
    """uint8 array [T, H, W, 3] -> tensor [T, 3, H, W], a view: channels-last memory suits OpenCV and CPUs.

    >>> from tubelet.data.warp import as_frames
    >>> as_frames(np.zeros((2, 4, 5, 3), np.uint8)).shape
    torch.Size([2, 3, 4, 5])
    """
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def scaling(across: float, down: float) -> np.ndarray:
    """The matrix [3, 3] that scales x by `across` and y by `down`.

    >>> from tubelet.data.warp import scaling
    >>> (scaling(2, 3) @ [1, 1, 1]).tolist()
    [2.0, 3.0, 1.0]
    """
    return np.diag([across, down, 1.0])


def translation(x: float, y: float) -> np.ndarray:
    """The matrix [3, 3] that moves points by (x, y).

    >>> from tubelet.data.warp import translation
    >>> (translation(2, 3) @ [1, 1, 1]).tolist()
    [3.0, 4.0, 1.0]
    """
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def affine(*, angles: np.ndarray, shears: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Rotation x horizontal shear x scale; angles and shears in radians, each [T] -> float64 [T, 2, 2].

    >>> from tubelet.data.warp import affine
    >>> quarter_turn = affine(angles=np.array([np.pi / 2]), shears=np.zeros(1), scales=np.array([2.0]))
    >>> (quarter_turn[0] @ [1, 0]).round(6).tolist()
    [0.0, 2.0]
    """
    cos = np.cos(angles)
    sin = np.sin(angles)
    tan = np.tan(shears)
    rows = [[cos, cos * tan - sin], [sin, sin * tan + cos]]
    linear: np.ndarray = np.moveaxis(np.array(rows), -1, 0) * scales[:, None, None]
    return linear


def about(linear: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Matrices [T, 3, 3] that apply `linear` [T, 2, 2] about the point `source` [2] and move it to `target` [T, 2].

    >>> from tubelet.data.warp import about
    >>> matrices = about(2 * np.eye(2)[None], source=np.array([5, 5]), target=np.array([[0, 1]]))
    >>> (matrices[0] @ [5, 5, 1]).tolist(), (matrices[0] @ [6, 5, 1]).tolist()
    ([0.0, 1.0, 1.0], [2.0, 1.0, 1.0])
    """
    matrices = repeat(np.eye(3), len(linear))
    matrices[:, :2, :2] = linear
    matrices[:, :2, 2] = target - linear @ source
    return matrices


def repeat(matrix: np.ndarray, length: int) -> np.ndarray:
    """The same matrix [3, 3] for every frame -> [length, 3, 3].

    >>> from tubelet.data.warp import repeat
    >>> repeat(np.eye(3), 4).shape
    (4, 3, 3)
    """
    return np.repeat(matrix[None], length, 0)


def smooth_path(rng: np.random.Generator, num: int, length: int, frames_per_turn: int = 6) -> np.ndarray:
    """Draw `num` values per frame in [-1, 1] that change smoothly over time, float64 [length, num].

    Up to two frames are independent; more follow a quadratic B-spline with a random control point every
    `frames_per_turn` frames.

    >>> from tubelet.data.warp import smooth_path
    >>> path = smooth_path(np.random.default_rng(0), num=2, length=30)
    >>> path.shape, bool(abs(np.diff(path, axis=0)).max() < 0.4)
    ((30, 2), True)
    """
    if length <= 2:
        return rng.uniform(-1, 1, (length, num))
    positions = np.arange(length) / frames_per_turn + rng.random()
    points = rng.uniform(-1, 1, (int(positions[-1]) + 3, num))
    return spline(points, positions)


def log_uniform(rng: np.random.Generator, limits: Range) -> float:
    """Draw a number whose logarithm is uniform between the logarithms of the limits.

    >>> from tubelet.data.warp import log_uniform
    >>> 0.5 <= log_uniform(np.random.default_rng(0), (0.5, 2.0)) <= 2.0
    True
    """
    return float(np.exp(rng.uniform(*np.log(limits))))


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """OpenCV's matrix [2, 3]: from output to source, in coordinates whose integers are pixel centres."""
    half = translation(0.5, 0.5)
    inverse: np.ndarray = np.linalg.inv(translation(-0.5, -0.5) @ matrix @ half)
    return inverse[:2]


def _shrink_first(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average blocks of pixels if an output pixel spans two source pixels or more, so that nothing aliases.

    Returns the smaller image and the matrix from it to the output.
    """
    spans = 1 / np.maximum(np.linalg.norm(matrix[:2, :2], axis=0), 1e-6)
    across, down = np.maximum(spans.astype(int), 1)
    if across == 1 and down == 1:
        return image, matrix
    height, width = image.shape[:2]
    new = (max(1, round(width / across)), max(1, round(height / down)))
    small = cv2.resize(image, new, interpolation=cv2.INTER_AREA)
    return small, matrix @ scaling(width / new[0], height / new[1])


def _pack(masks: np.ndarray) -> np.ndarray:
    """bool [N, H, W], N <= 32 -> uint8 [H, W, ceil(N / 8)], mask n in bit n % 8 of channel n // 8."""
    channels: list[np.ndarray] = []
    for n, mask in enumerate(masks.view(np.uint8)):
        if n % 8 == 0:
            channels.append(mask.copy(order="K"))  # decoded RLEs are column-major: keep their memory order
        else:
            channels[-1] |= mask << (n % 8)
    return np.ascontiguousarray(channels[0]) if len(channels) == 1 else np.stack(channels, -1)


def _unpack(bits: np.ndarray, out: Sequence[np.ndarray] | np.ndarray) -> None:
    """The reverse of `_pack`: write bool masks into `out` [N, H, W]."""
    for channel in range(bits.shape[-1]):
        plane = np.ascontiguousarray(bits[..., channel])
        for bit, mask in enumerate(out[8 * channel : 8 * channel + 8]):
            np.not_equal(plane & np.uint8(1 << bit), 0, out=mask)
