"""A comparison of systems as pictures: how accurate for what speed, and what goes wrong."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tubelet.drawing.colours import colour
from tubelet.drawing.figures import plain, save


def accuracy_over_speed(rows: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """AP over frames a second, a point per system with its deviation over the seeds, as a PNG at `out`.

    `rows` are those of `recipes.comparison.summarise`: `{"sta": {"about": "STA", "trials": [{"AP": 0.2, ...}]}}`.
    """
    from matplotlib.figure import Figure  # slow to import, and only drawing needs it
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(8.5, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    for n, row in enumerate(rows.values()):
        across, up = (_values(row["trials"], name) for name in ("fps", "AP"))
        shade = tuple(value / 255 for value in colour(n))
        x, y = statistics.fmean(across), 100 * statistics.fmean(up)
        axes.errorbar(
            x,
            y,
            xerr=_deviation(across),
            yerr=100 * _deviation(up),
            fmt="o",
            color=shade,
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
    """What goes wrong with each system, failures of the test videos by kind, mean over the seeds; a PNG at `out`."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(kind for row in rows.values() for counts in row["failures"] for kind in counts))
    figure = Figure(figsize=(9.5, 0.42 * len(rows) + 1.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(rows)
    for n, kind in enumerate(kinds):
        widths = [statistics.fmean(counts.get(kind, 0) for counts in row["failures"]) for row in rows.values()]
        shade = tuple(value / 255 for value in colour(n))
        axes.barh([str(row["about"]) for row in rows.values()], widths, left=left, color=shade, label=kind)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="failures")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plain(axes)
    save(figure, out)


def _values(trials: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [trial[name] for trial in trials]


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
