"""Identity measures beside py-motmetrics and TrackEval, in one run.

    python benchmarks/bench_evaluation_identity.py [--videos 40] [--repeats 3]

Videos of the easy and the hard case of `evaluation_case.py`. Programs take turns; printed are the best of each, and the
median of the ratios of all turns. py-motmetrics is given the distances ready made, so that only the following of
identities is compared; tubelet computes HOTA besides. TrackEval, where it is installed (`pip install trackeval`),
measures HOTA, CLEAR and ID on masks, from tracks in memory; both count scores from 0.3. Targets: 10 times faster than
py-motmetrics, 5 times faster than TrackEval; the sweep of 19 thresholds at most twice one evaluation.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import motmetrics
import numpy as np
from evaluation_case import EASY, HARD, write
from pycocotools import mask as coco
from turns import take_turns

from tubelet.evaluation import identity
from tubelet.evaluation.pairing import Pair, pair
from tubelet.formats import ytvis as files

NAMES = {"idf1": "IDF1", "idp": "IDP", "idr": "IDR", "mota": "MOTA", "num_switches": "IDs"}
NAMES |= {"num_false_positives": "FP", "num_misses": "FN", "num_fragmentations": "fragments"}


def main() -> None:
    """Generate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "tubelet-bench-evaluation")
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # a row is seen when it is measured

    for name, case in (("easy", EASY), ("hard", HARD)):
        truth, results = write(replace(case, videos=options.videos), options.folder)
        videos = files.read(truth)
        predictions = files.read_predictions(results, videos)
        print(f"{name}, {options.videos} videos")
        _following(pair(videos.videos, predictions), options.repeats)
        _on_masks(videos, predictions, options.repeats)


def _following(pairs: list[Pair], repeats: int) -> None:
    tables = [identity.overlaps(each) for each in pairs]

    def theirs() -> dict[str, float]:
        return _motmetrics(tables)

    def ours() -> dict[str, float]:
        return identity.numbers(sum((identity.count(table) for table in tables), identity.Counts.none()))

    expected, found = theirs(), ours()
    assert max(abs(expected[key] - found[key]) for key in expected) < 1e-9, "both must give the same numbers"
    mot, own = take_turns([theirs, ours], repeats)
    print(f"  following only: py-motmetrics {mot}   tubelet {own}   {mot.over(own)}")


def _on_masks(videos: files.AnnotatedSet, predictions: Any, repeats: int) -> None:
    def once() -> dict[str, float]:
        return identity.evaluate(videos.videos, predictions, on_masks=True, rules="trackeval")

    def sweep() -> Any:
        return identity.sweep(videos.videos, predictions, on_masks=True, rules="trackeval")

    if importlib.util.find_spec("trackeval") is None:
        print("  TrackEval is not installed; no comparison")
        own, swept = take_turns([once, sweep], repeats)
    else:
        prepared = [_as_rles(each) for each in pair(videos.videos, predictions)]
        expected, found = _trackeval(prepared), once()
        assert max(abs(expected[key] - found[key]) for key in expected) < 1e-9, "both must give the same numbers"
        other, own, swept = take_turns([lambda: _trackeval(prepared), once, sweep], repeats)
        print(f"  on masks: TrackEval {other}   tubelet {own}   {other.over(own)}")
    print(f"  19 thresholds: tubelet {swept}   {swept.over(own)} of one evaluation")


Rles = list[list[dict[str, Any] | None]]  # of each track, in each frame


def _as_rles(pair: Pair) -> tuple[Rles, Rles]:
    """Truths and confident predictions as TrackEval takes masks."""

    def rles(tube: Any) -> list[dict[str, Any] | None]:
        return [None if rle is None else {"size": list(rle.size), "counts": rle.counts} for rle in tube]

    truths = [rles(tube) for tube, track in zip(pair.truth_tubes, pair.truths, strict=True) if not track.ignore]
    scored = zip(pair.guess_tubes, pair.predictions, strict=True)
    return truths, [rles(tube) for tube, track in scored if track.score >= identity.THRESHOLD]


def _trackeval(prepared: list[tuple[Rles, Rles]]) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        from trackeval.metrics import CLEAR, HOTA, Identity

        metrics = [HOTA(), CLEAR(), Identity()]
    results: list[dict[str, Any]] = [{} for _ in metrics]
    for video, (truths, predictions) in enumerate(prepared):
        data = _as_data(truths, predictions)
        for metric, of_videos in zip(metrics, results, strict=True):
            of_videos[str(video)] = metric.eval_sequence(data)
    hota, clear, ids = (metric.combine_sequences(result) for metric, result in zip(metrics, results, strict=True))
    names = {"MOTA": "MOTA", "MOTP": "MOTP", "IDSW": "IDs", "Frag": "fragments", "MT": "MT"}
    numbers = {name: float(np.mean(hota[name])) for name in ("HOTA", "DetA", "AssA", "LocA")}
    return numbers | {"IDF1": float(ids["IDF1"])} | {ours: float(clear[theirs]) for theirs, ours in names.items()}


def _as_data(truths: Rles, predictions: Rles) -> dict[str, Any]:
    frames = list(zip(zip(*truths, strict=True), zip(*predictions, strict=True), strict=True))
    ids = [[np.array([n for n, rle in enumerate(side) if rle is not None], int) for side in frame] for frame in frames]
    overlaps = []
    for frame in frames:
        g, p = ([rle for rle in side if rle is not None] for side in frame)
        overlaps.append(np.asarray(coco.iou(g, p, [False] * len(p))).reshape(len(g), len(p)))
    return {
        "num_timesteps": len(frames),
        "num_gt_ids": len(truths),
        "num_tracker_ids": len(predictions),
        "num_gt_dets": sum(len(g) for g, _ in ids),
        "num_tracker_dets": sum(len(p) for _, p in ids),
        "gt_ids": [g for g, _ in ids],
        "tracker_ids": [p for _, p in ids],
        "similarity_scores": overlaps,
    }


def _motmetrics(tables: list[identity.Overlaps]) -> dict[str, float]:
    accumulators = []
    for table in tables:
        accumulator = motmetrics.MOTAccumulator(auto_id=True)
        for similarity, truths, guesses in zip(table.similarity, table.truths, table.predictions, strict=True):
            g, p = np.flatnonzero(truths), np.flatnonzero(guesses)
            distance = 1 - similarity[np.ix_(g, p)]
            distance[distance > 0.5] = np.nan
            accumulator.update(g.tolist(), p.tolist(), distance)
        accumulators.append(accumulator)
    host = motmetrics.metrics.create()
    computed = host.compute_many(accumulators, metrics=list(NAMES), generate_overall=True)
    return {ours: float(computed.loc["OVERALL", theirs]) for theirs, ours in NAMES.items()}


if __name__ == "__main__":
    main()
