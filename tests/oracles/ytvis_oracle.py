"""YouTube-VIS AP and AR as plainly as the rules can be written: per pair, per frame, merge and area; loops throughout.

Works on the JSON of the truth and of the result list as parsed, shares no code with the package, and is what the
benchmarks call the straightforward evaluator. Source: the public rules of the YouTube-VIS evaluation.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from pycocotools import mask as coco

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
RANGES = {"": (0, 1e10), "_small": (0, 128**2), "_medium": (128**2, 256**2), "_large": (256**2, 1e10)}
MOST = (1, 10, 100)


def prepare(truth: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """What the official loader does: number the results from 1, count every mask's pixels, compress plain counts."""
    sizes = {video["id"]: (video["height"], video["width"]) for video in truth["videos"]}
    for number, result in enumerate(results, 1):
        result["id"] = number
        result["areas"] = [float(coco.area(mask)) if mask else None for mask in result["segmentations"]]
        result["bboxes"] = [coco.toBbox(mask).tolist() if mask else None for mask in result["segmentations"]]
    for annotation in truth["annotations"]:
        size = sizes[annotation["video_id"]]
        annotation["segmentations"] = [_compressed(mask, size) for mask in annotation["segmentations"]]


def evaluate(
    truth: dict[str, Any], results: list[dict[str, Any]], *, agnostic: bool = False, official_ids: bool = True
) -> dict[str, float]:
    """The twelve numbers; `official_ids` keeps the fault that a truth with id 0 counts as unmatched."""
    videos = sorted(video["id"] for video in truth["videos"])
    categories = [-1] if agnostic else sorted(category["id"] for category in truth["categories"])
    truths, guesses = _grouped(truth["annotations"], agnostic), _grouped(results, agnostic)
    for tracks in (truths, guesses):
        for group in tracks.values():
            for track in group:
                track["average"] = _average([area for area in track["areas"] if area])
    overlaps = {}
    for key in sorted({*truths, *guesses}):
        ranked = _ranked(guesses[key])
        overlaps[key] = np.array([[iou(guess, real) for real in truths[key]] for guess in ranked])
    numbers: dict[str, float] = {}
    tables = {
        name: [
            [_matched(truths[v, c], guesses[v, c], overlaps.get((v, c)), span, official_ids) for v in videos]
            for c in categories
        ]
        for name, span in RANGES.items()
    }
    for name, table in tables.items():
        curves = [_curves([match for match in row if match], 100) for row in table]
        curves = [curve for curve in curves if curve is not None]
        numbers[f"AP{name}"] = _mean([precision for precision, _ in curves])
        if not name:
            numbers["AP50"] = _mean([precision[0] for precision, _ in curves])
            numbers["AP75"] = _mean([precision[5] for precision, _ in curves])
        for most in MOST if not name else (100,):
            rows = [_curves([match for match in row if match], most) for row in table]
            label = f"AR{name}" if name else f"AR{most}"
            numbers[label] = _mean([row[1] for row in rows if row is not None])
    return numbers


def iou(guess: dict[str, Any], real: dict[str, Any]) -> float:
    """Summed intersections over summed unions of two tracks."""
    intersection = union = 0.0
    for a, b in zip(guess["segmentations"], real["segmentations"], strict=True):
        if a and b:
            intersection += coco.area(coco.merge([a, b], True))
            union += coco.area(coco.merge([a, b], False))
        elif a or b:
            union += coco.area(a or b)
    return intersection / union if union > 0 else 0.0


def _matched(
    truths: list[Any], guesses: list[Any], overlaps: np.ndarray | None, span: tuple[float, float], official_ids: bool
) -> dict[str, Any] | None:
    if not truths and not guesses:
        return None
    outside = [bool(real["iscrowd"]) or not span[0] <= real["average"] <= span[1] for real in truths]
    order = [n for n, out in enumerate(outside) if not out] + [n for n, out in enumerate(outside) if out]
    ranked = _ranked(guesses)
    found = np.zeros((len(THRESHOLDS), len(ranked)), bool)
    ignored = np.zeros((len(THRESHOLDS), len(ranked)), bool)
    for t, threshold in enumerate(THRESHOLDS):
        taken = set()
        for g in range(len(ranked)):
            best, chosen = min(threshold, 1 - 1e-10), None
            for r in order:
                if r in taken and not truths[r]["iscrowd"]:
                    continue
                if chosen is not None and not outside[chosen] and outside[r]:
                    break
                if overlaps[g, r] >= best:
                    best, chosen = overlaps[g, r], r
            if chosen is not None:
                taken.add(chosen)
                found[t, g] = truths[chosen]["id"] != 0 or not official_ids
                ignored[t, g] = outside[chosen]
            if not found[t, g] and not span[0] <= ranked[g]["average"] <= span[1]:
                ignored[t, g] = True
    return {"scores": [guess["score"] for guess in ranked], "found": found, "ignored": ignored, "outside": outside}


def _curves(matches: list[Any], most: int) -> tuple[np.ndarray, np.ndarray] | None:
    real = sum(not out for match in matches for out in match["outside"])
    if real == 0:
        return None
    scores = np.array([score for match in matches for score in match["scores"][:most]])
    order = np.argsort(-scores, kind="stable")
    found = np.concatenate([match["found"][:, :most] for match in matches], axis=1)[:, order]
    ignored = np.concatenate([match["ignored"][:, :most] for match in matches], axis=1)[:, order]
    precisions, recalls = np.zeros((10, 101)), np.zeros(10)
    for t in range(10):
        right = np.cumsum(found[t] & ~ignored[t]).astype(float)
        wrong = np.cumsum(~found[t] & ~ignored[t]).astype(float)
        recall, precision = right / real, right / (right + wrong + np.spacing(1))
        for n in range(len(precision) - 1, 0, -1):
            precision[n - 1] = max(precision[n - 1], precision[n])
        recalls[t] = recall[-1] if len(recall) else 0
        for p, point in enumerate(RECALLS):
            reached = np.searchsorted(recall, point, side="left")
            precisions[t, p] = precision[reached] if reached < len(precision) else 0
    return precisions, recalls


def _grouped(tracks: list[Any], agnostic: bool) -> dict[tuple[int, int], list[Any]]:
    groups = defaultdict(list)
    for track in sorted(tracks, key=lambda track: track["category_id"]) if agnostic else tracks:
        groups[track["video_id"], -1 if agnostic else track["category_id"]].append(track)
    return groups


def _ranked(guesses: list[Any]) -> list[Any]:
    return [guesses[n] for n in np.argsort([-guess["score"] for guess in guesses], kind="stable")[:100]]


def _average(areas: list[float]) -> float:
    return float(np.mean(areas)) if areas else 0.0


def _mean(values: list[np.ndarray]) -> float:
    return float(np.mean(values)) if values else -1.0


def _compressed(mask: Any, size: tuple[int, int]) -> Any:
    if not mask:
        return None
    if isinstance(mask, list):
        return coco.merge(coco.frPyObjects(mask, *size))
    return coco.frPyObjects(mask, *size) if isinstance(mask["counts"], list) else mask
