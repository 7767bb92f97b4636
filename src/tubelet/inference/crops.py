"""Objects cut out of their frames: one folder of images for each identity."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from tubelet.core.types import Frame

LONGEST_NAME = 60  # characters of a class's name in a folder's name


def write_crops(folder: Path, frames: Iterable[Frame], *, transparent: bool) -> int:
    """Write `<class>-<id>/00012.png` for each object and frame; returns the number of images.

    An image is the object's box; `transparent` clears the pixels outside its mask.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from tubelet.inference.crops import write_crops
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_crops(Path(folder), frames=[], transparent=False)
    0
    """
    count = 0
    for frame in frames:
        image = frame.image.permute(1, 2, 0).cpu().numpy()
        boxes = frame.boxes.cpu().numpy().round().astype(int).tolist()
        for n, (left, top, right, bottom) in enumerate(boxes):
            if right <= left or bottom <= top:
                continue
            crop = image[top:bottom, left:right]
            if transparent:
                inside = frame.masks[n, top:bottom, left:right].cpu().numpy()
                crop = np.dstack([crop, np.where(inside, 255, 0).astype(np.uint8)])

            target = folder / f"{_safe(frame.names[n])}-{int(frame.ids[n])}"
            target.mkdir(parents=True, exist_ok=True)
            write_image(target / f"{frame.index:05d}.png", crop)
            count += 1
    return count


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, uint8 [H, W, 3] RGB or [H, W, 4] RGBA, in the format of the suffix."""
    order = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(np.ascontiguousarray(image), order))
    assert done, "OpenCV knows PNG"
    path.write_bytes(data.tobytes())


def _safe(name: str) -> str:
    """A class's name as part of a folder's name."""
    return re.sub(r"[^\w-]+", "_", name)[:LONGEST_NAME] or "_"
