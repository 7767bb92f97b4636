"""Semantic segmentation of a video: the class of every pixel, and how class maps are saved.

The maps come from the model's semantic branch, or without one from its objects, the higher scores on top.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tubelet.core.atomic import together
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.protocol import SemanticSegmenter, VideoSegmenter, Window
from tubelet.core.text import to_json
from tubelet.core.types import Video
from tubelet.core.untrusted.images import decode, read_image_file
from tubelet.drawing.semantic import tint
from tubelet.evaluation.semantic import MOST_CLASSES, class_map
from tubelet.formats.label_maps import PALETTE, encode_map
from tubelet.inference.modes import device_of, evaluating
from tubelet.inference.overlaps import WindowOverlaps
from tubelet.inference.reading import read
from tubelet.inference.results import ProgressCallback, VideoPrediction
from tubelet.video.writer import VideoWriter

MAPS = "semantic"
OVERLAY = "semantic.mp4"
LEGEND = "classes.json"


def semantic_maps(
    model: VideoSegmenter[Any], prediction: VideoPrediction, *, window: Window | None = None
) -> Iterator[np.ndarray]:
    """The class map of every frame of the predicted video, in order: uint8 [H, W], 0 background, k + 1 class k.

    They come from the model's semantic branch if it has one (the video is read again, window by window), else from the
    predicted objects. Raises ConfigError if there are more classes than a uint8 map can store.
    """
    if len(prediction.classes) > MOST_CLASSES:
        raise ConfigError(f"a class map holds {MOST_CLASSES} classes, not {len(prediction.classes)}")
    if model.traits.semantic:
        assert isinstance(model, SemanticSegmenter), "traits.semantic promises semantic_maps"
        return _from_branch(model, prediction.source, window or model.window)
    return (class_map(prediction.tracks, prediction.size, t) for t in range(prediction.length))


def save_semantic(
    prediction: VideoPrediction,
    maps: Iterator[np.ndarray],
    folder: str | Path,
    *,
    video: bool = True,
    progress: ProgressCallback | None = None,
) -> None:
    """Write semantic/00000.png ... (palette PNG), semantic/classes.json (what the numbers mean) and semantic.mp4.

    All files appear together or not at all; maps of an earlier run are replaced. Raises InputError if `semantic`
    contains other files.
    """
    names = ("background", *prediction.classes)
    _check_earlier(Path(folder) / MAPS)

    with together(folder) as scratch:
        map_folder = scratch / MAPS
        map_folder.mkdir()
        for t, classes in enumerate(maps):
            (map_folder / f"{t:05d}.png").write_bytes(encode_map(classes))
            if progress is not None:
                progress(t + 1, prediction.length)

        legend = to_json(dict(enumerate(names)), indent=1)
        (map_folder / LEGEND).write_text(legend, encoding="utf-8")
        if video:
            _draw(prediction.source, map_folder, scratch / OVERLAY, names)


def _draw(video: Video, maps: Path, out: Path, names: tuple[str, ...]) -> None:
    with VideoWriter(out, video.size, video.fps, pixel_aspect=video.pixel_aspect) as writer:
        for t, frame in enumerate(video.frames):
            path = maps / f"{t:05d}.png"  # read again, so that not all maps are in memory
            classes = decode(read_image_file(path), str(path)).values
            image = np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy())
            writer.write(tint(image, classes, PALETTE, names), video.time(t))


def _from_branch(model: SemanticSegmenter[Any], video: Video, window: Window) -> Iterator[np.ndarray]:
    overlaps: WindowOverlaps[_Classes] = WindowOverlaps()
    device = device_of(model)
    for clip, _, settled in read(video, window, None):
        with evaluating(model):
            maps = model.semantic_maps(clip.to(device)).float().cpu().numpy()

        key_frames = clip.index[clip.key].tolist()
        for t, probabilities in zip(key_frames, maps, strict=True):
            overlaps.add(t, _Classes(probabilities, 1))

        for _, classes in overlaps.release(settled):
            assert classes is not None, "a window predicts at least one frame"
            yield most_probable(classes.total, video.size)


@dataclass(frozen=True, slots=True)
class _Classes:
    """The sum of the windows' class probabilities in one frame."""

    total: np.ndarray  # [K + 1, h, w]
    count: int

    def plus(self, other: _Classes) -> _Classes:
        return _Classes(self.total + other.total, self.count + other.count)

    def mean(self) -> _Classes:
        return _Classes(self.total / self.count, 1)

    def towards(self, later: _Classes, weight: float) -> _Classes:
        return _Classes((1 - weight) * self.mean().total + weight * later.mean().total, 1)


def most_probable(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Probabilities float32 [K + 1, h, w] -> the best class of every pixel of a frame of `size`, uint8 [H, W].

    Classes are resized one by one, so that memory does not grow with them; a class that is below 1 / (K + 1) everywhere
    cannot be the best.

    >>> most_probable(np.array([[[0.9, 0.2]], [[0.1, 0.8]]], np.float32), (1, 2))
    array([[0, 1]], dtype=uint8)
    """
    best = np.full(size, -1, np.float32)
    classes = np.zeros(size, np.uint8)
    for k, plane in enumerate(probabilities):
        if plane.max() * len(probabilities) < 1 - 1e-4:
            continue

        resized = cv2.resize(plane.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        better = resized > best
        classes[better] = k
        np.maximum(best, resized, out=best)
    return classes


def _check_earlier(folder: Path) -> None:
    """Raise InputError if something other than class maps would be replaced."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of class maps or nothing, found a file")

    files = sorted(folder.iterdir()) if folder.is_dir() else []
    for file in files:
        if not re.fullmatch(rf"\d{{5,}}\.png|{re.escape(LEGEND)}", file.name):
            raise InputError(f"{folder}: expected a folder of class maps or nothing, found {file.name}")
