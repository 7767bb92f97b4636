"""Identity measures beside py-motmetrics, with the same distances, in one run.

    python benchmarks/bench_evaluation_identity.py [--videos 40] [--repeats 3]

Videos of the validation-sized case, all fifty predictions of each. py-motmetrics is given the distances ready made, so
that only the following of identities is compared; tubelet computes HOTA besides. Target: 10 times faster.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import motmetrics
import numpy as np
from evaluation_case import Case, write

from tubelet.evaluation import identity
from tubelet.evaluation.pairing import pair
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
    truth, results = write(replace(Case(), videos=options.videos), options.folder)
    videos = files.read(truth)
    answers = files.read_predictions(results, videos)
    tables = [identity.overlaps(one) for one in pair(videos.videos, answers)]

    def theirs() -> dict[str, float]:
        return _motmetrics(tables)

    def ours() -> dict[str, float]:
        return identity.numbers(sum((identity.count(table) for table in tables), identity.Counts.none()))

    expected, found = theirs(), ours()
    assert max(abs(expected[key] - found[key]) for key in expected) < 1e-9, "both must give the same numbers"
    before, after = (_best(run, options.repeats) for run in (theirs, ours))
    ratio = " and ".join(
        f"{b / a:.1f}x {kind}" for b, a, kind in zip(before, after, ("processor", "clock"), strict=True)
    )
    print(f"following, {options.videos} videos: py-motmetrics {before[0]:.2f} s, tubelet {after[0]:.2f} s: {ratio}")
    for on_masks in (False, True):
        cost = _best(lambda on=on_masks: identity.sweep(videos.videos, answers, on_masks=on), 1)
        print(f"the whole sweep of 19 thresholds on {'masks' if on_masks else 'boxes'}: {cost[0]:.2f} s processor")


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


def _best(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Processor and clock seconds of the best repeat."""
    costs = []
    for _ in range(repeats):
        before, begin = time.process_time(), time.perf_counter()
        run()
        costs.append((time.process_time() - before, time.perf_counter() - begin))
    return min(c[0] for c in costs), min(c[1] for c in costs)


if __name__ == "__main__":
    main()
