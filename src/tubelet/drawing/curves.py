"""The curves of a training as one picture: losses, raw and smoothed, validation, and the learning rate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tubelet.core.errors import FormatError, InputError
from tubelet.core.untrusted.documents import decode_figures
from tubelet.core.untrusted.files import read
from tubelet.drawing.colours import colour
from tubelet.drawing.figures import plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMOOTHING = 0.02  # share of the logged steps over which a value is averaged

VALIDATION = "validation_"  # prefix of what a validation measures
MOST_MEASURES = 4  # of a validation, in the picture

Row = dict[str, float]


def training_curve(metrics: Path, out: Path) -> None:
    """Draw `metrics` (JSON lines such as `{"step": 10, "lr": 0.01, "loss": 2.1, "loss_mask": 0.7}`) as a PNG at `out`.

    Shows `loss` and all values whose name starts with it and, if there are any, the first few fractions whose name
    starts with `validation_`. Of a value that was logged twice for one step, before and after resuming, the last one
    counts; a last line that was cut short is skipped. Raises InputError if the file is missing or has no step yet,
    FormatError for lines that are not such JSON.
    """
    rows = _rows(metrics)
    names = _loss_names(rows)
    if not names:
        raise FormatError(f"{metrics}: no line holds a loss")

    from matplotlib.figure import Figure  # slow to import, and only drawing needs it

    measures = _measures(rows)
    heights = (4, 3, 1) if measures else (4, 1)
    figure = Figure(figsize=(10, 6 if not measures else 8), dpi=120, layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    above = panels[0]
    below = panels[-1]
    for n, name in enumerate(names):
        _draw_loss(above, rows, name, n)
    above.set(ylabel="loss", yscale="log" if _all_positive(rows, names) else "linear")
    above.legend(frameon=False, ncols=min(len(names), 4))

    if measures:
        _draw_measures(panels[1], rows, measures)

    with_rate = [row for row in rows if "lr" in row]
    below.plot([row["step"] for row in with_rate], [row["lr"] for row in with_rate], color="0.35")
    below.set(xlabel="step", ylabel="learning rate")

    for axes in panels:
        plain(axes)
    save(figure, out)


def smoothed(values: np.ndarray, span: float) -> np.ndarray:
    """Exponential moving average over about `span` values [N], corrected for its start at zero -> float64 [N].

    Values that are not finite are skipped and do not affect later ones.

    >>> from tubelet.drawing.curves import smoothed
    >>> smoothed(np.array([4.0, 4.0, float("nan"), 4.0]), span=2).round(6).tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    decay = span / (span + 1) if span > 0 else 0.0
    means = np.empty(len(values))
    total = 0.0
    weight = 0.0
    for n, value in enumerate(values):
        if math.isfinite(value):
            total = decay * total + (1 - decay) * value
            weight = decay * weight + (1 - decay)
        means[n] = total / weight if weight else math.nan
    return means


def _loss_names(rows: list[Row]) -> list[str]:
    """Names that start with `loss`: the total first, then by alphabet."""
    names = {name for row in rows for name in row if name.startswith("loss")}
    return sorted(names, key=lambda name: (name != "loss", name))


def _measures(rows: list[Row]) -> list[str]:
    """Names of a validation's first few fractions, in their order; counts would need an axis of their own."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(VALIDATION))
    fractions = [name for name in names if all(row[name] <= 1 for row in rows if name in row)]
    return fractions[:MOST_MEASURES]


def _draw_measures(axes: Axes, rows: list[Row], names: list[str]) -> None:
    for n, name in enumerate(names):
        points = [(row["step"], 100 * row[name]) for row in rows if row.get(name, -1) >= 0]
        steps = [step for step, _ in points]
        values = [value for _, value in points]
        shade = tuple(value / 255 for value in colour(n))
        label = name.removeprefix(VALIDATION)
        axes.plot(steps, values, color=shade, linewidth=2.2 if n == 0 else 1.4, marker="o", markersize=4, label=label)
    axes.set(ylabel="validation, percent", ylim=(0, None))
    axes.legend(frameon=False, ncols=len(names))


def _all_positive(rows: list[Row], names: list[str]) -> bool:
    """Whether there are finite losses and all of them are above zero, so that an axis can be logarithmic."""
    losses = [row[name] for row in rows for name in names if name in row]
    finite = [loss for loss in losses if math.isfinite(loss)]
    return bool(finite) and min(finite) > 0


def _draw_loss(axes: Axes, rows: list[Row], name: str, n: int) -> None:
    points = [(row["step"], row[name]) for row in rows if name in row]
    steps, values = np.array(points, np.float64).T
    means = smoothed(values, len(values) * SMOOTHING)
    shade = tuple(value / 255 for value in colour(n))
    axes.plot(steps, values, color=shade, alpha=0.2, linewidth=0.8)
    axes.plot(steps, means, color=shade, linewidth=2.2 if n == 0 else 1.4, label=name)


def _rows(metrics: Path) -> list[Row]:
    """The logged values, one row for each step, sorted by step; losses and a validation have a line each."""
    lines = read(metrics).decode("utf-8", errors="replace").splitlines()
    by_step: dict[float, Row] = {}
    for number, line in enumerate(lines, start=1):
        row = _row(line, f"{metrics}, line {number}", is_last=number == len(lines))
        if row:
            by_step.setdefault(row["step"], {}).update(row)

    if not by_step:
        raise InputError(f"{metrics}: no step is logged yet")
    return [by_step[step] for step in sorted(by_step)]


def _row(line: str, where: str, *, is_last: bool) -> Row | None:
    """The numbers of one line; None for an empty line, and for a last line that was cut short."""
    if not line.strip():
        return None
    try:
        row = decode_figures(line, where)
    except FormatError:
        if is_last:
            return None
        raise FormatError(f"{where}: expected one JSON object, got {line[:40]!r}") from None

    if not isinstance(row, dict) or not isinstance(row.get("step"), int | float):
        raise FormatError(f"{where}: expected an object with a step, got {line[:40]!r}")
    try:
        return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
    except OverflowError:
        raise FormatError(f"{where}: expected numbers that can be drawn, got {line[:40]!r}") from None
