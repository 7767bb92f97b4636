"""Paste objects from other videos of the set into a clip, each with a random motion and scale and a new identity."""

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

_MARGIN = 2  # pixels around the cut object, in which its edge can fade
_ATTEMPTS = 8  # source frames drawn until one has a fitting object


class PasteObjects(Config):
    """How many objects are pasted, how large they are, and how they move. `build(sources)` gives the transform.

    All objects pasted into one clip come from one source frame, so that only one is decoded. If it has fewer objects
    than drawn, some are pasted more than once: look-alikes with different identities. Raises ConfigError unless
    `count` and `size` are rising.

    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.data.pasting import PasteObjects
    >>> paste = PasteObjects(count=(1, 2), least_pixels=100)
    >>> type(paste.build(VideoSet(videos=[], classes=("dog",)))).__name__
    'Paster'
    """

    kind: Literal["paste"] = "paste"
    count: tuple[int, int] = (0, 3)  # fewest and most objects per clip
    size: Range = (0.1, 0.5)  # square root of the object's box area over the square root of the frame's
    enlarge: float = Field(default=2.0, gt=0)  # largest scale of a source object
    travel: float = Field(default=0.3, ge=0)  # longest way over the whole clip, as a share of the frame's sides
    rotation: float = Field(default=20.0, ge=0, le=180)  # degrees, either way
    breathing: float = Field(default=0.1, ge=0, lt=1)  # change of scale while moving, either way
    behind: float = Field(default=0.3, ge=0, le=1)  # probability to pass behind the clip's own objects
    feather: float = Field(default=0.8, ge=0)  # pixels over which the edge fades
    least_pixels: int = Field(default=400, ge=1)  # smallest area of a source object
    whole: bool = True  # cut only objects that do not touch their image's edge
    min_left: float = Field(default=0.2, ge=0, le=1)  # an object with a smaller visible share is absent in that frame

    @model_validator(mode="after")
    def _rising(self) -> PasteObjects:
        if not 0 <= self.count[0] <= self.count[1]:
            raise ValueError(f"count must be two rising numbers from 0, got {self.count}")
        if not 0 < self.size[0] <= self.size[1]:
            raise ValueError(f"size must be two rising positive numbers, got {self.size}")
        return self

    def build(self, sources: VideoSet) -> Paster:
        """The transform that cuts objects from `sources`, whose classes must be those of the clips."""
        return Paster(self, sources)


@dataclass(frozen=True, slots=True)
class Paster:
    """The transform of `PasteObjects`: `paster(clip, rng)`. Clips without truth are returned unchanged.

    >>> from tubelet.core import masks
    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.data.pasting import PasteObjects, Paster
    >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=tuple(masks.encode(np.ones((1, 8, 8), bool))))
    >>> frame = torch.full((3, 8, 8), 200, dtype=torch.uint8)
    >>> sources = VideoSet(videos=[tubelet.Video(id="v", size=(8, 8), frames=[frame], tracks=(track,))], classes=("a",))
    >>> paster = Paster(PasteObjects(count=(2, 2), least_pixels=1, whole=False), sources)
    >>> index = torch.arange(3)
    >>> clip = tubelet.Clip(frames=torch.zeros(3, 3, 64, 64, dtype=torch.uint8), index=index, key=index >= 0,
    ...                     tracks=tubelet.Tracks.empty(index, num_classes=1, size=(64, 64)))
    >>> paster(clip, np.random.default_rng(0)).tracks.ids
    tensor([0, 1])
    """

    config: PasteObjects
    sources: VideoSet

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Clip:
        count = int(rng.integers(self.config.count[0], self.config.count[1] + 1))
        if clip.tracks is None or not count:
            return clip
        cuts = self._cuts(count, rng)
        if not cuts:
            return clip

        original = clip.tracks.binary.numpy()
        pasted = np.zeros((count, *original.shape[1:]), bool)
        masks = np.concatenate([original, pasted])
        images = as_images(clip.frames).copy()
        full_areas = areas(masks).astype(float)  # without occlusion

        for n, cut in enumerate(cuts, start=len(original)):
            matrices, scales = self._motion(cut, images.shape, rng)
            full_areas[n] = scales**2 * np.count_nonzero(cut.mask)
            behind = rng.random() < self.config.behind
            for t, matrix in enumerate(matrices):
                _blend(cut, matrix, images[t], masks[: n + 1, t], behind, self.config.feather)

        keep_present(masks, areas(masks) >= np.maximum(self.config.min_left * full_areas, 1))
        tracks = _join(clip.tracks, masks, [cut.label for cut in cuts])
        return replace(clip, frames=as_frames(images), tracks=tracks)

    def _cuts(self, count: int, rng: np.random.Generator) -> list[_Cut]:
        """Cut `count` objects from a random source frame; none if no frame with a fitting object was drawn."""
        for _ in range(_ATTEMPTS):
            video = self.sources.videos[int(rng.integers(len(self.sources.videos)))]
            t = int(rng.integers(len(video)))
            fitting = [track for track in video.tracks or () if self._fits(track, video, t)]
            if not fitting:
                continue
            image = as_images(video.frames[t][None])[0]
            order = rng.permutation(len(fitting))
            return [_cut(image, fitting[order[n % len(fitting)]], t) for n in range(count)]
        return []

    def _fits(self, track: Track, video: Video, t: int) -> bool:
        mask = track.rles[t]
        if mask is None or track.ignore:
            return False
        if rle.areas([mask])[0] < self.config.least_pixels:
            return False

        x1, y1, x2, y2 = rle.boxes([mask])[0]
        height, width = video.size
        is_whole = min(x1, y1) >= _MARGIN and x2 <= width - _MARGIN and y2 <= height - _MARGIN
        return bool(is_whole) or not self.config.whole

    def _motion(self, cut: _Cut, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Matrices [T, 3, 3] from the cut to the frames of `shape` (T, H, W, 3), and each frame's scale [T]."""
        length, height, width, _ = shape
        scale = log_uniform(rng, self.config.size) * np.sqrt(height * width / cut.mask.size)
        scale = min(scale, self.config.enlarge)
        mirror = np.diag([1.0 if rng.random() < 0.5 else -1.0, 1.0])
        start = rng.uniform(0, 1, 2)
        travel = rng.uniform(-1, 1, 2) * self.config.travel
        sways, turns, zooms = smooth_path(rng, 3, length).T

        progress = np.linspace(0, 1, length) if length > 1 else np.zeros(1)
        centres = (start + progress[:, None] * travel + 0.02 * sways[:, None]) * (width, height)
        angles = np.radians(self.config.rotation) * (rng.uniform(-1, 1) + turns / 3)
        scales = scale * (1 + self.config.breathing * zooms)
        poses = affine(angles=angles, shears=np.zeros(length), scales=scales) @ mirror
        return about(poses, np.array(cut.mask.shape[::-1]) / 2, centres), scales


@dataclass(frozen=True, slots=True)
class _Cut:
    image: np.ndarray  # uint8 [h, w, 3], black outside the mask, so that no background is pasted with it
    mask: np.ndarray  # uint8 [h, w], 0 or 255
    label: int


def _cut(image: np.ndarray, track: Track, t: int) -> _Cut:
    mask = track.rles[t]
    assert mask is not None, "only objects present in the frame are cut"
    x1, y1, x2, y2 = rle.boxes([mask])[0].astype(int)
    rows = slice(max(y1 - _MARGIN, 0), y2 + _MARGIN)
    columns = slice(max(x1 - _MARGIN, 0), x2 + _MARGIN)
    shape = rle.decode([mask])[0][rows, columns]
    return _Cut(image[rows, columns] * shape[..., None], shape * np.uint8(255), track.label)


def _blend(cut: _Cut, matrix: np.ndarray, image: np.ndarray, masks: np.ndarray, behind: bool, feather: float) -> None:
    """Draw the cut into `image` [H, W, 3], in place, and update `masks` [N, H, W], of which the cut's is the last.

    In front of the others, the cut hides them; `behind` them, it is hidden where they are.
    """
    window, shift = _window(cut.mask.shape, matrix, masks.shape[1:])
    others = masks[:-1, *window]
    mask = masks[-1, *window]
    if mask.size == 0:
        return

    local = translation(*shift) @ matrix
    colour = warp_image(cut.image, local, mask.shape)
    alpha = warp_image(cut.mask, local, mask.shape)
    if feather:
        colour = cv2.GaussianBlur(colour, (0, 0), feather)
        alpha = cv2.GaussianBlur(alpha, (0, 0), feather)
    if behind:
        hidden = others.any(0)
        colour[hidden] = 0
        alpha[hidden] = 0

    opacity = alpha[..., None].astype(np.float32) / 255
    image[window] = np.minimum(colour + image[window] * (1 - opacity) + 0.5, 255)
    np.greater(alpha, 127, out=mask)
    if not behind:
        others &= ~mask


def _window(shape: Size, matrix: np.ndarray, frame: Size) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """The part of the frame that a warped rectangle touches, and the shift (x, y) from frame to window."""
    height, width = shape
    corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], float)
    low = np.floor(corners[:2].min(1)).astype(int).clip(0)
    high = np.ceil(corners[:2].max(1)).astype(int)

    x1, y1 = low
    x2 = max(min(high[0], frame[1]), x1)
    y2 = max(min(high[1], frame[0]), y1)
    return (slice(y1, y2), slice(x1, x2)), (-x1, -y1)


def _join(tracks: Tracks, masks: np.ndarray, labels: list[int]) -> Tracks:
    """Append P pasted objects with new ids; `masks` [N + P, T, H, W] are those of all. Drops absent objects."""
    first_id = int(tracks.ids.max()) + 1 if len(tracks) else 0
    ids = torch.arange(first_id, first_id + len(labels))
    scores = torch.zeros(len(labels), tracks.scores.shape[1])
    scores[torch.arange(len(labels)), torch.tensor(labels)] = 1
    joined = Tracks(
        ids=torch.cat([tracks.ids, ids]),
        scores=torch.cat([tracks.scores, scores]),
        masks=torch.from_numpy(masks),
        index=tracks.index,
    )
    return drop_absent(joined)
