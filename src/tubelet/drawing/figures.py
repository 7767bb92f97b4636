"""What every matplotlib picture here shares: how its axes look, and that its file appears whole or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tubelet.core.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plain(axes: Axes) -> None:
    """A light grid and no frame above and to the right."""
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, out: Path) -> None:
    """Write a figure as a PNG at `out`; raises InputError where that cannot be written."""
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format="png")
        os.replace(temporary, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({str(error.strerror).lower()})") from None
    finally:
        with suppress(OSError):  # gone already, or its folder never was
            temporary.unlink()
