"""Write trackeval_numbers.json: what TrackEval measures on the random tables of `overlap_tables.py`.

    pip install trackeval==1.3.0     # in an environment of its own; MIT licence
    python tests/oracles/make_trackeval_numbers.py

Only numbers are kept. A class without any truth or prediction is left out of the averages.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from overlap_tables import RandomTable, random_classes
from trackeval.metrics import CLEAR, HOTA, Identity

SEEDS = 80
DIGITS = 12
NAMES = {"IDF1": "IDF1", "IDP": "IDP", "IDR": "IDR"}
NAMES |= {name: name for name in ("MOTA", "MOTAL", "MOTP", "MODA", "sMOTA", "MT", "PT", "ML")}
NAMES |= {"IDSW": "IDs", "CLR_FP": "FP", "CLR_FN": "FN", "Frag": "fragments"}
NAMES |= {name: name for name in ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA", "OWTA")}
NAMES |= {name: name for name in ("HOTA(0)", "LocA(0)", "HOTALocA(0)")}


def main() -> None:
    """Measure, and write beside this file."""
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = [HOTA(), CLEAR(), Identity()]
    stored = [measure(random_classes(seed), metrics) for seed in range(SEEDS)]
    Path(__file__).with_name("trackeval_numbers.json").write_text(json.dumps(stored) + "\n")


def measure(classes: list[list[RandomTable]], metrics: list[Any]) -> dict[str, Any]:
    """The numbers of each class, and the two averages over classes."""
    per_class: list[dict[str, float]] = [{} for _ in classes]
    averages: list[dict[str, float]] = [{}, {}]
    for metric in metrics:
        combined = {}
        for k, videos in enumerate(classes):
            of_videos = {str(n): metric.eval_sequence(as_data(table)) for n, table in enumerate(videos)}
            combined[str(k)] = metric.combine_sequences(of_videos)
            per_class[k] |= numbers(combined[str(k)])
        if any(table.truths.any() or table.predictions.any() for videos in classes for table in videos):
            averages[0] |= numbers(metric.combine_classes_class_averaged(combined, ignore_empty_classes=True))
            averages[1] |= numbers(metric.combine_classes_det_averaged(combined))
    return {"classes": per_class, "class average": averages[0], "detection average": averages[1]}


def as_data(table: RandomTable) -> dict[str, Any]:
    """One video as TrackEval's data sets give it to its metrics: tracks that never appear are left out."""
    rows, columns = table.truths.any(0), table.predictions.any(0)
    truths, predictions = table.truths[:, rows], table.predictions[:, columns]
    similarity = table.similarity[:, rows][:, :, columns]
    ids = [(np.flatnonzero(g), np.flatnonzero(p)) for g, p in zip(truths, predictions, strict=True)]
    return {
        "num_timesteps": len(similarity),
        "num_gt_ids": int(rows.sum()),
        "num_tracker_ids": int(columns.sum()),
        "num_gt_dets": int(truths.sum()),
        "num_tracker_dets": int(predictions.sum()),
        "gt_ids": [g for g, _ in ids],
        "tracker_ids": [p for _, p in ids],
        "similarity_scores": [frame[np.ix_(g, p)] for frame, (g, p) in zip(similarity, ids, strict=True)],
    }


def numbers(result: dict[str, Any]) -> dict[str, float]:
    """Our names; HOTA's curves as their means."""
    return {ours: round(float(np.mean(result[theirs])), DIGITS) for theirs, ours in NAMES.items() if theirs in result}


if __name__ == "__main__":
    sys.exit(main())
