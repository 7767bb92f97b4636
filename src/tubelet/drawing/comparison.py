"""Charts that compare systems: accuracy over speed, and failures by kind."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tubelet.drawing.colours import colour
from tubelet.drawing.figures import plain, save


def accuracy_over_speed(rows: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Draw AP over frames per second as a PNG at `out`: one point per system, with standard deviations over the seeds.

    `rows` are those of `recipes.comparison.summarise`: `{"sta": {"about": "STA", "trials": [{"AP": 0.2, ...}]}}`.
    """
    from matplotlib.figure import Figure  # slow to import, and only drawing needs it
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(8.5, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    for n, row in enumerate(rows.values()):
        speeds = _values(row["trials"], "fps")
        precisions = _values(row["trials"], "AP")
        axes.errorbar(
            statistics.fmean(speeds),
            100 * statistics.fmean(precisions),
            xerr=_deviation(speeds),
            yerr=100 * _deviation(precisions),
            fmt="o",
            color=_shade(n),
            capsize=2,
            label=row["about"],
        )

    axes.set(xlabel="frames a second", ylabel="AP", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    plain(axes)
    save(figure, out)


def failure_bars(rows: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Draw each system's failures on the test videos by kind, mean over the seeds, as a PNG at `out`.

    `rows` are those of `recipes.comparison.summarise`, with `failures`: a dict of counts by kind for each seed.
    """
    from matplotlib.figure import Figure

    systems = [str(row["about"]) for row in rows.values()]
    figure = Figure(figsize=(9.5, 0.42 * len(rows) + 1.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(rows)
    for n, kind in enumerate(_kinds(rows)):
        widths = [_mean_count(row["failures"], kind) for row in rows.values()]
        axes.barh(systems, widths, left=left, color=_shade(n), label=kind)
        left = [start + width for start, width in zip(left, widths, strict=True)]

    axes.invert_yaxis()
    axes.set(xlabel="failures")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plain(axes)
    save(figure, out)


def _kinds(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every kind of failure, in order of first appearance."""
    kinds: dict[str, None] = {}
    for row in rows.values():
        for counts in row["failures"]:
            kinds |= dict.fromkeys(counts)
    return list(kinds)


def _mean_count(failures: Sequence[Mapping[str, int]], kind: str) -> float:
    return statistics.fmean(counts.get(kind, 0) for counts in failures)


def _shade(n: int) -> tuple[float, ...]:
    """The colour of number n as matplotlib takes it, 0..1."""
    return tuple(value / 255 for value in colour(n))


def _values(trials: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [trial[name] for trial in trials]


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
