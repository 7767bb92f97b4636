"""How a training went, as one picture: the losses, smoothed over their raw values, and the learning rate."""

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

SMOOTHING = 0.02  # of the steps shown: over so many a value is averaged


def training_curve(metrics: Path, out: Path) -> None:
    """Draw `metrics` (JSON lines such as `{"step": 10, "lr": 0.01, "loss": 2.1, "loss_mask": 0.7}`) as a PNG at `out`.

    Shows `loss` and everything whose name begins with it. A step that was logged twice, before and after a resumed
    run, counts as logged last, and a last line that a kill cut short is left out. Raises InputError where there is no
    file or no step yet, FormatError for lines that are no such JSON.
    """
    rows = _rows(metrics)
    names = sorted({name for row in rows for name in row if name.startswith("loss")}, key=lambda n: (n != "loss", n))
    if not names:
        raise FormatError(f"{metrics}: no line holds a loss")
    from matplotlib.figure import Figure  # slow to import, and only drawing needs it

    figure = Figure(figsize=(10, 6), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for n, name in enumerate(names):
        _draw_line(above, rows, name, n)
    finite = [row[name] for row in rows for name in names if name in row and math.isfinite(row[name])]
    above.set(ylabel="loss", yscale="log" if finite and min(finite) > 0 else "linear")
    above.legend(frameon=False, ncols=min(len(names), 4))
    rates = [(row["step"], row["lr"]) for row in rows if "lr" in row]
    below.plot(*zip(*rates, strict=True) if rates else ([], []), color="0.35")
    below.set(xlabel="step", ylabel="learning rate")
    for axes in (above, below):
        plain(axes)
    save(figure, out)


def _draw_line(axes: Axes, rows: list[dict[str, float]], name: str, n: int) -> None:
    points = [(row["step"], row[name]) for row in rows if name in row]
    steps, values = np.array(points, np.float64).T
    shade = tuple(value / 255 for value in colour(n))
    axes.plot(steps, values, color=shade, alpha=0.2, linewidth=0.8)
    axes.plot(
        steps, smoothed(values, len(values) * SMOOTHING), color=shade, linewidth=2.2 if n == 0 else 1.4, label=name
    )


def smoothed(values: np.ndarray, span: float) -> np.ndarray:
    """An exponential mean over about `span` values [N], without the pull towards zero at its start.

    Values that are not finite are passed over and do not spoil those after them.
    """
    keep = span / (span + 1) if span > 0 else 0.0
    means, total, weight = np.empty(len(values)), 0.0, 0.0
    for n, value in enumerate(values):
        if math.isfinite(value):
            total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        means[n] = total / weight if weight else math.nan
    return means


def _rows(metrics: Path) -> list[dict[str, float]]:
    lines = read(metrics).decode("utf-8", errors="replace").splitlines()
    by_step: dict[float, dict[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        row = _row(line, f"{metrics}, line {number}", is_last=number == len(lines))
        if row:
            by_step[row["step"]] = row
    if not by_step:
        raise InputError(f"{metrics}: no step is logged yet")
    return [by_step[step] for step in sorted(by_step)]


def _row(line: str, where: str, *, is_last: bool) -> dict[str, float] | None:
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
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
