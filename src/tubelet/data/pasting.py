"""Objects cut from other clips of the set and pasted with a motion, scale, occlusion and identity of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch
from pydantic import Field, model_validator

from tubelet.core import masks as rle
from tubelet.core.config import Config
from tubelet.core.types import Clip, Track, Tracks, Video, VideoSet
from tubelet.data.warp import (
    Range,
    Size,
    about,
    affine,
    areas,
    as_frames,
    as_images,
    drop_absent,
    keep_present,
    log_uniform,
    smooth_path,
    translation,
    warp_image,
)

_MARGIN = 2  # pixels of surroundings kept around a cut: room for its edge to fade


class PasteObjects(Config):
    """How many objects are pasted, how large, and how they move. `build(sources)` gives the transform.

    All objects pasted into one clip come from one source frame, so that it is decoded once; with fewer objects there
    than asked for, some are pasted twice: look-alikes with identities of their own.
    """

    kind: Literal["paste"] = "paste"
    count: tuple[int, int] = (0, 3)  # least and most objects per clip
    size: Range = (0.1, 0.5)  # square root of the object's box area over the square root of the frame's
    enlarge: float = Field(default=2.0, gt=0)  # an object is never blown up more than this
    travel: float = Field(default=0.3, ge=0)  # way over the whole clip, at most, as a share of the frame's sides
    rotation: float = Field(default=20.0, ge=0, le=180)  # degrees, either way
    breathing: float = Field(default=0.1, ge=0, lt=1)  # change of scale while moving, either way
    behind: float = Field(default=0.3, ge=0, le=1)  # chance to pass behind the clip's own objects
    feather: float = Field(default=0.8, ge=0)  # pixels over which the edge fades
    least_pixels: int = Field(default=400, ge=1)  # of a source object
    whole: bool = True  # only objects that do not touch their image's edge
    min_left: float = Field(default=0.2, ge=0, le=1)  # an object with less of it visible is absent in that frame

    @model_validator(mode="after")
    def _rising(self) -> PasteObjects:
        if not 0 <= self.count[0] <= self.count[1]:
            raise ValueError(f"count must be two rising numbers from 0, got {self.count}")
        if not 0 < self.size[0] <= self.size[1]:
            raise ValueError(f"size must be two rising positive numbers, got {self.size}")
        return self

    def build(self, sources: VideoSet) -> Paster:
        """The transform that cuts from `sources`, whose classes must be those of the clips."""
        return Paster(self, sources)


@dataclass(frozen=True, slots=True)
class Paster:
    """A clip transform: `paster(clip, rng)`. Clips without truth pass unchanged."""

    config: PasteObjects
    sources: VideoSet

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Clip:
        count = int(rng.integers(self.config.count[0], self.config.count[1] + 1))
        if clip.tracks is None or not count or not (cuts := self._cuts(count, rng)):
            return clip
        own = clip.tracks.binary.numpy()
        images = as_images(clip.frames).copy()
        masks = np.concatenate([own, np.zeros((count, *own.shape[1:]), bool)])
        full = areas(masks).astype(float)
        for n, cut in enumerate(cuts, start=len(own)):
            matrices, scales = self._motion(cut, images.shape, rng)
            full[n] = scales**2 * np.count_nonzero(cut.mask)
            behind = rng.random() < self.config.behind
            for t, matrix in enumerate(matrices):
                _blend(cut, matrix, images[t], masks[: n + 1, t], behind, self.config.feather)
        keep_present(masks, areas(masks) >= np.maximum(self.config.min_left * full, 1))
        return replace(clip, frames=as_frames(images), tracks=_join(clip.tracks, masks, [cut.label for cut in cuts]))

    def _cuts(self, count: int, rng: np.random.Generator) -> list[_Cut]:
        for _ in range(8):  # a source without a fitting object is drawn again
            video = self.sources.videos[int(rng.integers(len(self.sources.videos)))]
            t = int(rng.integers(len(video)))
            fitting = [track for track in video.tracks or () if self._fits(track, video, t)]
            if fitting:
                image = as_images(video.frames[t][None])[0]
                order = rng.permutation(len(fitting))
                return [_cut(image, fitting[order[n % len(fitting)]], t) for n in range(count)]
        return []

    def _fits(self, track: Track, video: Video, t: int) -> bool:
        mask = track.rles[t]
        if mask is None or track.ignore or rle.areas([mask])[0] < self.config.least_pixels:
            return False
        x1, y1, x2, y2 = rle.boxes([mask])[0]
        height, width = video.size
        inside = min(x1, y1) >= _MARGIN and x2 <= width - _MARGIN and y2 <= height - _MARGIN
        return bool(inside) or not self.config.whole

    def _motion(self, cut: _Cut, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Matrices [T, 3, 3] from the cut to the frames of `shape` (T, H, W, 3), and each frame's scale [T]."""
        length, height, width, _ = shape
        wanted = log_uniform(rng, self.config.size) * np.sqrt(height * width / cut.mask.size)
        mirror = np.diag([1.0 if rng.random() < 0.5 else -1.0, 1.0])
        start, way = rng.uniform(0, 1, 2), rng.uniform(-1, 1, 2) * self.config.travel
        sways, turns, zooms = smooth_path(rng, 3, length).T
        progress = np.linspace(0, 1, length) if length > 1 else np.zeros(1)
        centres = (start + progress[:, None] * way + 0.02 * sways[:, None]) * (width, height)
        angles = np.radians(self.config.rotation) * (rng.uniform(-1, 1) + turns / 3)
        scales = min(wanted, self.config.enlarge) * (1 + self.config.breathing * zooms)
        poses = affine(angles=angles, shears=np.zeros(length), scales=scales) @ mirror
        return about(poses, np.array(cut.mask.shape[::-1]) / 2, centres), scales


@dataclass(frozen=True, slots=True)
class _Cut:
    image: np.ndarray  # uint8 [h, w, 3], black outside the mask, so that nothing of its surroundings comes along
    mask: np.ndarray  # uint8 [h, w], 0 or 255
    label: int


def _cut(image: np.ndarray, track: Track, t: int) -> _Cut:
    mask = track.rles[t]
    assert mask is not None, "only objects present in the frame are cut"
    x1, y1, x2, y2 = rle.boxes([mask])[0].astype(int)
    window = np.s_[max(y1 - _MARGIN, 0) : y2 + _MARGIN, max(x1 - _MARGIN, 0) : x2 + _MARGIN]
    shape = rle.decode([mask])[0][window]
    return _Cut(image[window] * shape[..., None], shape * np.uint8(255), track.label)


def _blend(cut: _Cut, matrix: np.ndarray, image: np.ndarray, masks: np.ndarray, behind: bool, feather: float) -> None:
    """Draw the cut into `image` [H, W, 3]; its mask is the last of `masks` [N, H, W], the others are what it meets."""
    window, corner = _window(cut.mask.shape, matrix, masks.shape[1:])
    others, own = masks[:-1, *window], masks[-1, *window]
    if own.size == 0:
        return
    local = translation(*corner) @ matrix
    colour, alpha = (warp_image(part, local, own.shape) for part in (cut.image, cut.mask))
    if feather:
        colour, alpha = (cv2.GaussianBlur(part, (0, 0), feather) for part in (colour, alpha))
    if behind:
        hidden = others.any(0)
        colour[hidden], alpha[hidden] = 0, 0
    share = alpha[..., None].astype(np.float32) / 255
    image[window] = np.minimum(colour + image[window] * (1 - share) + 0.5, 255)
    np.greater(alpha, 127, out=own)
    if not behind:
        others &= ~own


def _window(shape: Size, matrix: np.ndarray, frame: Size) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """The part of the frame that a moved rectangle touches, and the shift (x, y) from frame to window."""
    height, width = shape
    corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], float)
    low = np.floor(corners[:2].min(1)).astype(int).clip(0)
    high = np.ceil(corners[:2].max(1)).astype(int)
    x2, y2 = min(high[0], frame[1]), min(high[1], frame[0])
    return (slice(low[1], max(y2, low[1])), slice(low[0], max(x2, low[0]))), (-low[0], -low[1])


def _join(tracks: Tracks, masks: np.ndarray, labels: list[int]) -> Tracks:
    """The tracks with new masks [N + P, T, H, W], the last P of objects with new ids; absent objects are dropped."""
    first = int(tracks.ids.max()) + 1 if len(tracks) else 0
    scores = torch.zeros(len(labels), tracks.scores.shape[1])
    scores[torch.arange(len(labels)), torch.tensor(labels)] = 1
    return drop_absent(
        Tracks(
            ids=torch.cat([tracks.ids, torch.arange(first, first + len(labels))]),
            scores=torch.cat([tracks.scores, scores]),
            masks=torch.from_numpy(masks),
            index=tracks.index,
        )
    )
