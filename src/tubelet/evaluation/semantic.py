"""Semantic segmentation of video: intersection over union (IoU) of class maps.

Pixels are counted over all frames of all videos.

A class map has 0 for background, k + 1 for class k and, in truth, 255 for void, which counts
nowhere. All measures come from one confusion matrix of pixels. Source: the measure of PASCAL VOC
and Cityscapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.records import Track

VOID = 255
MOST_CLASSES = 254  # that fit into a byte, beside background and void
BAND = 1 << 22  # pixels that are counted at a time


class ClassMaps(NamedTuple):
    """One video's class maps, uint8 [H, W] per frame; each iterable is read once.

    Example:
        >>> from tubelet.evaluation.semantic import ClassMaps
        >>> truth = np.zeros((2, 4, 4), np.uint8)
        >>> ClassMaps("v", truth, truth).name
        'v'
    """

    name: str
    truth: Iterable[np.ndarray]
    answer: Iterable[np.ndarray]  # the prediction


def evaluate(videos: Iterable[ClassMaps], num_classes: int) -> dict[str, float]:
    """Compute the mean IoU and pixel accuracy of predicted class maps.

    The mean is over classes that the truth contains. A class that only the prediction contains is
    not part of it, but takes its pixels from the others.

    Returns:
        mIoU (over background and classes), mIoU_classes (without background), IoU_background and
        pixel_accuracy, as fractions; -1 where nothing counts.

    Raises:
        FormatError: names video and frame, if maps differ in size or number, or contain a class out
            of range.

    Example:
        >>> from tubelet.evaluation.semantic import ClassMaps, evaluate
        >>> truth = np.array([[[0, 1], [1, 255]]], np.uint8)
        >>> prediction = np.array([[[0, 1], [0, 1]]], np.uint8)
        >>> evaluate([ClassMaps("v", truth, prediction)], num_classes=1)["mIoU"]
        0.5
    """
    return numbers(confusion(videos, num_classes))


def confusion(videos: Iterable[ClassMaps], num_classes: int) -> np.ndarray:
    """Count pixels by true class (rows) and predicted class (columns): int64 [K + 1, K + 1].

    Background comes first.

    Raises:
        FormatError: as `evaluate` does.

    Example:
        >>> from tubelet.evaluation.semantic import ClassMaps, confusion
        >>> truth = np.array([[[0, 1], [1, 255]]], np.uint8)
        >>> prediction = np.array([[[0, 1], [0, 1]]], np.uint8)
        >>> confusion([ClassMaps("v", truth, prediction)], num_classes=1)
        array([[1, 0],
               [1, 1]])
    """
    table = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for video in videos:
        for t, (truth, answer) in enumerate(zip_longest(video.truth, video.answer)):
            if truth is None or answer is None:
                raise FormatError(f"video {video.name}: truth and answer have different numbers of frames")
            table += _count(truth, answer, num_classes, f"video {video.name}, frame {t}")
    return table


def numbers(table: np.ndarray) -> dict[str, float]:
    """Turn a confusion matrix, int [K + 1, K + 1], into the measures that `evaluate` returns.

    Example:
        >>> from tubelet.evaluation.semantic import numbers
        >>> numbers(np.array([[1, 0], [1, 2]]))["pixel_accuracy"]
        0.75
    """
    overlaps = _overlaps(table)
    in_truth = table.sum(1) > 0
    total = int(table.sum())
    return {
        "mIoU": _mean(overlaps[in_truth]),
        "mIoU_classes": _mean(overlaps[1:][in_truth[1:]]),
        "IoU_background": float(overlaps[0]) if in_truth[0] else -1.0,
        "pixel_accuracy": float(np.trace(table) / total) if total else -1.0,
    }


def per_class(table: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the IoU and the share of the truth's pixels of each class that the truth contains.

    Args:
        table: Confusion matrix, int [K + 1, K + 1].
        classes: The K names.

    Example:
        >>> from tubelet.evaluation.semantic import per_class
        >>> per_class(np.array([[1, 0], [1, 2]]), ["cat"])["background"]
        {'IoU': 0.5, 'share': 0.25}
    """
    overlaps = _overlaps(table)
    pixels = table.sum(1)
    rows = {}
    for k, name in enumerate(("background", *classes)):
        if pixels[k]:
            rows[name] = {"IoU": float(overlaps[k]), "share": float(pixels[k] / pixels.sum())}
    return rows


def class_map(tracks: Sequence[Track], size: tuple[int, int], t: int) -> np.ndarray:
    """Draw the class map of frame t, uint8 [H, W]; `size` is (height, width).

    Tracks of higher score cover those of lower score; among equal scores, as in truth, smaller
    objects cover larger ones. Pixels that only an ignored track (a crowd) covers are void.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation.semantic import class_map
        >>> track = tubelet.Track(id=1, label=4, score=1.0, rles=encode(np.eye(2)[None]))
        >>> class_map([track], size=(2, 2), t=0)
        array([[5, 0],
               [0, 5]], dtype=uint8)
    """
    present = [(track, rle) for track in tracks if (rle := track.rles[t]) is not None]
    areas = masks.areas([rle for _, rle in present])

    def drawing_order(n: int) -> tuple[bool, float, int]:
        track, _ = present[n]
        return (not track.ignore, track.score, -int(areas[n]))

    drawn = np.zeros(size, np.uint8)
    for n in sorted(range(len(present)), key=drawing_order):
        track, rle = present[n]
        inside = masks.decode([rle])[0].astype(bool)
        drawn[inside] = VOID if track.ignore else track.label + 1
    return drawn


def _count(truth: np.ndarray, answer: np.ndarray, num_classes: int, where: str) -> np.ndarray:
    """The confusion matrix of one frame; `where` names it in errors."""
    if truth.shape != answer.shape:
        expected = f"{truth.shape[1]}x{truth.shape[0]}"
        came = f"{answer.shape[1]}x{answer.shape[0]}"
        raise FormatError(f"{where}: expected an answer of {expected}, got {came}")

    table = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    rows = max(BAND // truth.shape[1], 1)
    for top in range(0, len(truth), rows):  # int64 copies of a whole large frame would take eight times its bytes
        table += _count_band(truth[top : top + rows], answer[top : top + rows], num_classes, where)
    return table


def _count_band(truth: np.ndarray, answer: np.ndarray, num_classes: int, where: str) -> np.ndarray:
    counted = truth != VOID
    true_class = truth[counted].astype(np.int64)
    predicted_class = answer[counted].astype(np.int64)
    for name, values in (("truth", true_class), ("answer", predicted_class)):
        if values.size and values.max() > num_classes:
            raise FormatError(f"{where}: class {values.max()} in the {name}, but there are {num_classes}")

    size = num_classes + 1
    cells = true_class * size + predicted_class
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def _overlaps(table: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, float [K + 1]; 0 where it occurs nowhere."""
    shared = np.diag(table).astype(float)
    union = table.sum(0) + table.sum(1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else -1.0
