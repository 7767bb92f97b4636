"""Which class every pixel shows: what a model with a semantic branch says of a video, and how it is saved.

A model that has no such branch still shows classes: those of its objects, the surer ones on top.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from tubelet.core.atomic import together
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.protocol import Window
from tubelet.core.text import to_json
from tubelet.core.types import Clip, Video
from tubelet.core.untrusted.images import decode, read_image_file
from tubelet.data.label_maps import PALETTE, encode_map
from tubelet.drawing.semantic import tint
from tubelet.evaluation.semantic import MOST_CLASSES, class_map
from tubelet.inference.results import Progress, VideoPrediction
from tubelet.video.windows import window_indices, windows
from tubelet.video.writer import VideoWriter

MAPS, OVERLAY, LEGEND = "semantic", "semantic.mp4", "classes.json"


@runtime_checkable
class SemanticSegmenter(Protocol):
    """A model that says of every pixel, not only of objects, which class it shows."""

    window: Window
    classes: tuple[str, ...]

    def semantic_maps(self, clip: Clip) -> Tensor:
        """Class probabilities of the clip's key frames, [T, K + 1, h, w], background first."""
        ...


def semantic_maps(model: object, prediction: VideoPrediction, *, window: Window | None = None) -> Iterator[np.ndarray]:
    """The class map of every frame of the predicted video, in order: uint8 [H, W], 0 background, k + 1 class k.

    From the model's semantic branch where it has one (read again, window by window), else from the predicted objects.
    Raises ConfigError for more classes than a map of bytes holds.
    """
    if len(prediction.classes) > MOST_CLASSES:
        raise ConfigError(f"a class map holds {MOST_CLASSES} classes, not {len(prediction.classes)}")
    if isinstance(model, SemanticSegmenter):
        return _from_branch(model, prediction.source, window or model.window)
    return (class_map(prediction.tracks, prediction.size, t) for t in range(prediction.length))


def save_semantic(
    prediction: VideoPrediction,
    maps: Iterator[np.ndarray],
    folder: str | Path,
    *,
    video: bool = True,
    progress: Progress | None = None,
) -> None:
    """Write semantic/00000.png ... (palette PNG), semantic/classes.json (what the numbers mean) and semantic.mp4.

    They appear together or not at all; maps of an earlier run are replaced. Raises InputError where `semantic` holds
    other files.
    """
    names = ("background", *prediction.classes)
    _check_earlier(Path(folder) / MAPS)
    with together(folder) as scratch:
        place = scratch / MAPS
        place.mkdir()
        for t, classes in enumerate(maps):
            (place / f"{t:05d}.png").write_bytes(encode_map(classes))
            if progress is not None:
                progress(t + 1, prediction.length)
        (place / LEGEND).write_text(to_json(dict(enumerate(names)), indent=1), encoding="utf-8")
        if video:
            _draw(prediction.source, place, scratch / OVERLAY, names)


def _draw(video: Video, maps: Path, out: Path, names: tuple[str, ...]) -> None:
    with VideoWriter(out, video.size, video.fps, pixel_aspect=video.pixel_aspect) as writer:
        for t, frame in enumerate(video.frames):
            stored = maps / f"{t:05d}.png"  # read again, so that maps need not be held
            classes = decode(read_image_file(stored), str(stored)).values
            image = np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy())
            writer.write(tint(image, classes, PALETTE, names), video.time(t))


def _from_branch(model: SemanticSegmenter, video: Video, window: Window) -> Iterator[np.ndarray]:
    spans = window_indices(len(video), window)
    settled = [span.predicted[0] for span in spans[1:]] + [len(video)]
    pending = _Pending()
    device = _device(model)
    for clip, before in zip(windows(video, window), settled, strict=True):
        with _evaluating(model), torch.inference_mode():
            pending.add(model.semantic_maps(clip.to(device)), clip.index[clip.key])
        for t in range(pending.done, before):
            yield most_probable(pending.take(t), video.size)


class _Pending:
    """Class probabilities of the frames that a later window may still touch, or that others are blended from."""

    def __init__(self) -> None:
        self.sums: dict[int, tuple[np.ndarray, int]] = {}
        self.done = 0

    def add(self, probabilities: Tensor, index: Tensor) -> None:
        """Take in one window's answer [T, K + 1, h, w] of the frames `index` [T]."""
        for t, one in zip(index.tolist(), probabilities.float().cpu().numpy(), strict=True):
            total, count = self.sums.get(t, (np.zeros_like(one), 0))
            self.sums[t] = total + one, count + 1

    def take(self, t: int) -> np.ndarray:
        """Mean probabilities [K + 1, h, w] of a frame; one that no window holds lies between its neighbours."""
        self.done = t + 1
        earlier = max((known for known in self.sums if known <= t), default=None)
        later = min((known for known in self.sums if known >= t), default=None)
        for passed in [known for known in self.sums if earlier is not None and known < earlier]:
            del self.sums[passed]
        if earlier is None or later is None or earlier == later:
            only = earlier if later is None else later
            assert only is not None, "a window predicts at least one frame"
            return self._mean(only)
        weight = (t - earlier) / (later - earlier)
        return (1 - weight) * self._mean(earlier) + weight * self._mean(later)

    def _mean(self, t: int) -> np.ndarray:
        total, count = self.sums[t]
        mean: np.ndarray = total / count
        return mean


def most_probable(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Probabilities float32 [K + 1, h, w] -> the best class of every pixel of a frame of `size`, uint8 [H, W].

    Resized one by one, so that memory does not grow with the classes; one that nowhere reaches an equal share cannot be
    the best.
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


def _check_earlier(place: Path) -> None:
    """Raise InputError where something other than class maps would be replaced."""
    earlier = sorted(place.iterdir()) if place.is_dir() else []
    strange = [path.name for path in earlier if not re.fullmatch(rf"\d{{5,}}\.png|{re.escape(LEGEND)}", path.name)]
    if strange or (place.exists() and not place.is_dir()):
        raise InputError(f"{place}: expected a folder of class maps or nothing, found {(strange or ['a file'])[0]}")


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = isinstance(model, nn.Module) and model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def _device(model: Any) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
