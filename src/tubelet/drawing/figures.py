"""What every matplotlib picture here shares: how its axes look, and that its file appears whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tubelet.core.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plain(axes: Axes) -> None:
    """A light grid and no frame above and to the right."""
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, out: Path) -> None:
    """Write a figure as a PNG at `out`; raises InputError where that cannot be written."""
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png")
