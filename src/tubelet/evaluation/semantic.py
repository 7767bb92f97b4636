"""Semantic segmentation of video: intersection over union of class maps, summed over all pixels of all frames.

A frame is a map of classes: 0 background, k + 1 class k, 255 void in truth, which counts nowhere. Everything comes from
one table of how many pixels of each class were given which. Source: the measure of PASCAL VOC and Cityscapes.
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
MOST_CLASSES = 254  # that one byte tells apart, beside background and void
BAND = 1 << 22  # pixels that are counted at a time


class ClassMaps(NamedTuple):
    """One video: class maps uint8 [H, W] of truth and answer, frame by frame, iterated over once."""

    name: str
    truth: Iterable[np.ndarray]
    answer: Iterable[np.ndarray]


def evaluate(videos: Iterable[ClassMaps], num_classes: int) -> dict[str, float]:
    """mIoU over background and the classes that the truth shows, mIoU_classes without background, IoU_background,
    pixel_accuracy; fractions.

    A class that only the answer shows costs the others its pixels, and is no part of the mean. -1 where nothing counts.
    Raises FormatError, which names video and frame, for maps of other sizes, numbers of frames or classes.
    """
    return numbers(confusion(videos, num_classes))


def confusion(videos: Iterable[ClassMaps], num_classes: int) -> np.ndarray:
    """Pixels by class of truth (rows) and of answer (columns), background first, int64 [K + 1, K + 1]."""
    table = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for video in videos:
        for t, (truth, answer) in enumerate(zip_longest(video.truth, video.answer)):
            if truth is None or answer is None:
                raise FormatError(f"video {video.name}: truth and answer have different numbers of frames")
            table += _count(truth, answer, num_classes, f"video {video.name}, frame {t}")
    return table


def numbers(table: np.ndarray) -> dict[str, float]:
    """The figures of a table of pixels."""
    overlaps, shown = _overlaps(table), table.sum(1) > 0
    total = int(table.sum())
    return {
        "mIoU": _mean(overlaps[shown]),
        "mIoU_classes": _mean(overlaps[1:][shown[1:]]),
        "IoU_background": float(overlaps[0]) if shown[0] else -1.0,
        "pixel_accuracy": float(np.trace(table) / total) if total else -1.0,
    }


def per_class(table: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """IoU and the share of the truth's pixels of every class that the truth shows."""
    overlaps, pixels = _overlaps(table), table.sum(1)
    names = ("background", *classes)
    return {
        name: {"IoU": float(overlaps[k]), "share": float(pixels[k] / pixels.sum())}
        for k, name in enumerate(names)
        if pixels[k]
    }


def class_map(tracks: Sequence[Track], size: tuple[int, int], t: int) -> np.ndarray:
    """The classes that objects of frame t show, uint8 [H, W].

    Objects of low score come first, so that surer ones lie on top; among equals, as in truth, smaller ones do. Void is
    where only something to be ignored is.
    """
    seen = [(track, rle) for track in tracks if (rle := track.rles[t]) is not None]
    areas = masks.areas([rle for _, rle in seen])
    order = sorted(range(len(seen)), key=lambda n: (not seen[n][0].ignore, seen[n][0].score, -int(areas[n])))
    drawn = np.zeros(size, np.uint8)
    for n in order:
        track, rle = seen[n]
        drawn[masks.decode([rle])[0].astype(bool)] = VOID if track.ignore else track.label + 1
    return drawn


def _count(truth: np.ndarray, answer: np.ndarray, num_classes: int, where: str) -> np.ndarray:
    if truth.shape != answer.shape:
        expected, came = (f"{shape[1]}x{shape[0]}" for shape in (truth.shape, answer.shape))
        raise FormatError(f"{where}: expected an answer of {expected}, got {came}")
    table = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    rows = max(BAND // truth.shape[1], 1)
    for top in range(0, len(truth), rows):  # wide numbers of a whole large frame would be eight times its bytes
        table += _count_band(truth[top : top + rows], answer[top : top + rows], num_classes, where)
    return table


def _count_band(truth: np.ndarray, answer: np.ndarray, num_classes: int, where: str) -> np.ndarray:
    counted = truth != VOID
    real, guess = truth[counted].astype(np.int64), answer[counted].astype(np.int64)
    for name, values in (("truth", real), ("answer", guess)):
        if values.size and values.max() > num_classes:
            raise FormatError(f"{where}: class {values.max()} in the {name}, but there are {num_classes}")
    size = num_classes + 1
    return np.bincount(real * size + guess, minlength=size * size).reshape(size, size)


def _overlaps(table: np.ndarray) -> np.ndarray:
    shared = np.diag(table).astype(float)
    union = table.sum(0) + table.sum(1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else -1.0
