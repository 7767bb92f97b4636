"""Draw a frame of a stream with its objects, and the frame rate in a corner."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from tubelet.core.types import Frame


def picture(frame: Frame, rate: float) -> np.ndarray:
    """Draw the frame's objects and the frame rate, uint8 [H, W, 3] RGB."""
    from tubelet.drawing.labels import label, text_height
    from tubelet.inference.results import render

    image = render(frame)
    plate = label(f"{rate:.1f} fps", text_height(image.shape[:2]), (24, 26, 30))
    height, width = min(plate.shape[0], image.shape[0]), min(plate.shape[1], image.shape[1])
    image[:height, -width:] = plate[:height, :width]
    return image
