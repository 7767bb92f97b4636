"""HOTA as plainly as its definition: loops over frames, pairs and overlaps."""

from __future__ import annotations

import itertools
import math

import numpy as np


def evaluate(videos: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Videos of similarity [T, G, P], presence [T, G] and presence [T, P] -> HOTA, DetA, AssA."""
    alphas = [n / 20 for n in range(1, 20)]
    detected, associated, combined = [], [], []
    for alpha in alphas:
        hits = misses = false = 0
        association = 0.0
        for similarity, truths, guesses in videos:
            pairs = [
                (g, p)
                for t in range(len(similarity))
                for g, p in _assignment(similarity, truths, guesses, t)
                if similarity[t, g, p] >= alpha - np.finfo(float).eps
            ]
            hits += len(pairs)
            misses += int(truths.sum()) - len(pairs)
            false += int(guesses.sum()) - len(pairs)
            for g, p in pairs:
                together = pairs.count((g, p))
                association += together / (truths[:, g].sum() + guesses[:, p].sum() - together)
        det, ass = hits / max(1, hits + misses + false), association / max(1, hits)
        detected.append(det)
        associated.append(ass)
        combined.append(math.sqrt(det * ass))
    return {"HOTA": float(np.mean(combined)), "DetA": float(np.mean(detected)), "AssA": float(np.mean(associated))}


def _assignment(similarity: np.ndarray, truths: np.ndarray, guesses: np.ndarray, t: int) -> tuple[tuple[int, int], ...]:
    """The pairs of frame t with the largest sum of overlap times alignment, by trying all."""
    present, given = np.flatnonzero(truths[t]).tolist(), np.flatnonzero(guesses[t]).tolist()
    gain = {(g, p): similarity[t, g, p] * _alignment(similarity, truths, guesses, g, p) for g in present for p in given}
    few, many = (present, given) if len(present) <= len(given) else (given, present)
    best: tuple[float, tuple[tuple[int, int], ...]] = (-1.0, ())
    for choice in itertools.permutations(many, len(few)):
        pairs = tuple(zip(few, choice, strict=True))
        pairs = pairs if few is present else tuple((g, p) for p, g in pairs)
        best = max(best, (sum(gain[pair] for pair in pairs), pairs))
    return best[1]


def _alignment(similarity: np.ndarray, truths: np.ndarray, guesses: np.ndarray, g: int, p: int) -> float:
    shared = 0.0
    for frame in similarity:
        total = frame[:, p].sum() + frame[g].sum() - frame[g, p]
        shared += frame[g, p] / total if total > np.finfo(float).eps else 0.0
    return shared / (truths[:, g].sum() + guesses[:, p].sum() - shared)
