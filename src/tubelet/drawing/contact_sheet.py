"""A grid of frames with captions: a whole video at one glance. `video.windows.evenly` chooses the frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from tubelet.drawing.labels import label

PAPER = (24, 24, 27)
SHAPE = 2.0  # width over height that a sheet aims at


def contact_sheet(images: Sequence[np.ndarray], captions: Sequence[str], width: int = 1600) -> np.ndarray:
    """Images in reading order, each over its caption, uint8 [h, width, 3] RGB.

    `images` are uint8 [H, W, 3] RGB; the first one's shape is every cell's, others are fitted into it with borders.
    Raises ValueError for no images, or where images and captions disagree on how many there are.
    """
    if not len(images) or len(images) != len(captions):
        raise ValueError(f"a contact sheet needs as many captions as images: {len(images)} and {len(captions)}")
    columns = _columns(len(images), images[0].shape[1] / images[0].shape[0])
    gap = max(width // 200, 2)
    cell_width = (width - gap * (columns + 1)) // columns
    if cell_width < 16:
        raise ValueError(f"a width of {width} pixels is too narrow for {columns} columns")
    cell_height = max(round(cell_width * images[0].shape[0] / images[0].shape[1]), 1)
    letters = min(max(round(cell_width * 0.045), 11), 32)
    cells = [
        _cell(image, caption, (cell_height, cell_width), letters)
        for image, caption in zip(images, captions, strict=True)
    ]
    return _grid(cells, columns, gap, width)


def caption(index: int, seconds: float) -> str:
    """What stands under a frame: its number, from 0, and its time."""
    minutes, rest = divmod(seconds, 60)
    clock = f"{int(minutes)}:{rest:05.2f}" if minutes else f"{rest:.2f} s"
    return f"frame {index}   {clock}"


def _columns(count: int, aspect: float) -> int:
    def misfit(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * aspect / rows / SHAPE)) + 0.15 * (rows * columns - count)

    return min(range(1, count + 1), key=misfit)


def _cell(image: np.ndarray, text: str, size: tuple[int, int], letters: int) -> np.ndarray:
    height, width = size
    scale = min(height / image.shape[0], width / image.shape[1])
    fitted = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    small = cv2.resize(image, fitted, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    plate = label(text, letters, PAPER)[:, :width]
    cell = np.full((height + plate.shape[0], width, 3), PAPER, np.uint8)
    top, left = (height - fitted[1]) // 2, (width - fitted[0]) // 2
    cell[top : top + fitted[1], left : left + fitted[0]] = small
    cell[height:, : plate.shape[1]] = plate
    return cell


def _grid(cells: Sequence[np.ndarray], columns: int, gap: int, width: int) -> np.ndarray:
    height, cell_width = cells[0].shape[:2]
    rows = math.ceil(len(cells) / columns)
    sheet = np.full((rows * (height + gap) + gap, width, 3), PAPER, np.uint8)
    for n, cell in enumerate(cells):
        top, left = gap + (n // columns) * (height + gap), gap + (n % columns) * (cell_width + gap)
        sheet[top : top + height, left : left + cell_width] = cell
    return sheet
