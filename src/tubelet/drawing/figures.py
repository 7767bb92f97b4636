"""What the matplotlib figures share: the look of their axes, and writing their file whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tubelet.core.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plain(axes: Axes) -> None:
    """Give axes a light grid, and remove the frame's top and right side.

    >>> from matplotlib.figure import Figure
    >>> from tubelet.drawing.figures import plain
    >>> axes = Figure().subplots()
    >>> plain(axes)
    >>> axes.spines["top"].get_visible()
    False
    """
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, out: Path) -> None:
    """Write a matplotlib figure as a PNG at `out`; raises InputError if that fails."""
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png")
