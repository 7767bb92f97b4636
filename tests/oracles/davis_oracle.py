"""DAVIS J and F pair by pair with full-size masks and dilations by a disk, as plainly as the rules can be written."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment
from skimage.morphology import disk


def evaluate(truth: np.ndarray, answer: np.ndarray, *, semi_supervised: bool = False) -> list[tuple[np.ndarray, ...]]:
    """Label maps [T, H, W] -> J [T] and F [T] of each object, in the order of the proposals."""
    void = truth == 255
    real = np.where(void, 0, truth)
    objects = [real == k for k in range(1, int(real[0].max()) + 1)]
    if semi_supervised:
        void, answer, objects = np.zeros_like(void)[1:-1], answer[1:-1], [one[1:-1] for one in objects]
    proposals = [answer == k for k in range(1, int(answer.max()) + 1)]
    while len(proposals) < len(objects):
        proposals.append(np.zeros_like(objects[0]))
    if semi_supervised:
        pairs: Any = [(n, n) for n in range(len(objects))]
    else:
        table = [[_pair(g, p, void) for g in objects] for p in proposals]
        gain = np.array([[np.mean(j) / 2 + np.mean(f) / 2 for j, f in row] for row in table]).reshape(len(table), -1)
        pairs = zip(*linear_sum_assignment(-gain), strict=True)
    return [_pair(objects[g], proposals[p], void) for p, g in pairs]


def summary(results: list[tuple[np.ndarray, ...]]) -> dict[str, float]:
    """Means over objects."""
    rows = np.array([[_statistics(j), _statistics(f)] for j, f in results]).mean(0)
    numbers = {"J&F": (rows[0, 0] + rows[1, 0]) / 2}
    for n, name in enumerate("JF"):
        numbers |= {name: rows[n, 0], f"{name}_recall": rows[n, 1], f"{name}_decay": rows[n, 2]}
    return numbers


def _statistics(values: np.ndarray) -> tuple[float, float, float]:
    ids = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(int)
    quarters = [values[ids[n] : ids[n + 1] + 1] for n in range(4)]
    return float(values.mean()), float((values > 0.5).mean()), float(quarters[0].mean() - quarters[3].mean())


def _pair(real: np.ndarray, guess: np.ndarray, void: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    overlap, contour = [], []
    for g, p, v in zip(real, guess, void, strict=True):
        union = ((g | p) & ~v).sum()
        overlap.append((g & p & ~v).sum() / union if union else 1.0)
        contour.append(_contour(p & ~v, g & ~v))
    return np.array(overlap), np.array(contour)


def _contour(guess: np.ndarray, real: np.ndarray) -> float:
    radius = int(np.ceil(0.008 * np.linalg.norm(guess.shape)))
    one, other = _boundary(guess), _boundary(real)
    near_one, near_other = (cv2.dilate(b.astype(np.uint8), disk(radius).astype(np.uint8)) > 0 for b in (one, other))
    if not one.any() and not other.any():
        return 1.0
    if not one.any() or not other.any():
        return 0.0
    precision, recall = (one & near_other).sum() / one.sum(), (other & near_one).sum() / other.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary(mask: np.ndarray) -> np.ndarray:
    edge = np.zeros_like(mask)
    edge[:-1, :-1] = (
        (mask[:-1, :-1] ^ mask[:-1, 1:]) | (mask[:-1, :-1] ^ mask[1:, :-1]) | (mask[:-1, :-1] ^ mask[1:, 1:])
    )
    edge[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    edge[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return edge
