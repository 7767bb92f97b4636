"""Contact sheets: a grid of a video's frames with captions. `video.windows.evenly` chooses the frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from tubelet.drawing.labels import label

PAPER = (24, 24, 27)  # colour of the background
SHAPE = 2.0  # preferred width over height of a sheet
TALLEST = 4.0  # height over width of a cell; a frame of one column of pixels would take gigabytes


def contact_sheet(images: Sequence[np.ndarray], captions: Sequence[str], width: int = 1600) -> np.ndarray:
    """Draw images in reading order, each above its caption, uint8 [h, width, 3] RGB.

    `images` are uint8 [H, W, 3] RGB. The cells have the shape of the first one, at most four times as high as wide;
    others are fitted in with borders.
    Raises ValueError for no images, for another number of captions, or if `width` leaves under 16 pixels a column.

    >>> from tubelet.drawing.contact_sheet import contact_sheet
    >>> frames = [np.zeros((36, 64, 3), np.uint8)] * 4
    >>> contact_sheet(frames, ["a", "b", "c", "d"], width=400).shape[1:]
    (400, 3)
    """
    if not len(images) or len(images) != len(captions):
        raise ValueError(f"a contact sheet needs as many captions as images: {len(images)} and {len(captions)}")

    first_height, first_width = images[0].shape[:2]
    shape = min(first_height / first_width, TALLEST)
    columns = _columns(len(images), 1 / shape)
    gap = max(width // 200, 2)
    cell_width = (width - gap * (columns + 1)) // columns
    if cell_width < 16:
        raise ValueError(f"a width of {width} pixels is too narrow for {columns} columns")
    cell_height = max(round(cell_width * shape), 1)
    size = (cell_height, cell_width)

    letters = min(max(round(cell_width * 0.045), 11), 32)
    cells = [_cell(image, text, size, letters) for image, text in zip(images, captions, strict=True)]
    return _grid(cells, columns, gap, width)


def caption(index: int, seconds: float) -> str:
    """The caption of a frame: its number, from 0, and its time.

    >>> from tubelet.drawing.contact_sheet import caption
    >>> caption(125, seconds=5.0), caption(1875, seconds=75.0)
    ('frame 125   5.00 s', 'frame 1875   1:15.00')
    """
    minutes, remainder = divmod(seconds, 60)
    clock = f"{int(minutes)}:{remainder:05.2f}" if minutes else f"{remainder:.2f} s"
    return f"frame {index}   {clock}"


def _columns(count: int, aspect: float) -> int:
    """The number of columns that brings a sheet near its preferred shape, with few empty cells."""

    def misfit(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * aspect / rows / SHAPE)) + 0.15 * (rows * columns - count)

    return min(range(1, count + 1), key=misfit)


def _cell(image: np.ndarray, text: str, size: tuple[int, int], letters: int) -> np.ndarray:
    height, width = size
    scale = min(height / image.shape[0], width / image.shape[1])
    new_width = max(round(image.shape[1] * scale), 1)
    new_height = max(round(image.shape[0] * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(image, (new_width, new_height), interpolation=method)

    plate = label(text, letters, PAPER)[:, :width]
    cell = np.full((height + plate.shape[0], width, 3), PAPER, np.uint8)
    top = (height - new_height) // 2
    left = (width - new_width) // 2
    cell[top : top + new_height, left : left + new_width] = resized
    cell[height:, : plate.shape[1]] = plate
    return cell


def _grid(cells: Sequence[np.ndarray], columns: int, gap: int, width: int) -> np.ndarray:
    height, cell_width = cells[0].shape[:2]
    rows = math.ceil(len(cells) / columns)
    sheet = np.full((rows * (height + gap) + gap, width, 3), PAPER, np.uint8)
    for n, cell in enumerate(cells):
        row, column = divmod(n, columns)
        top = gap + row * (height + gap)
        left = gap + column * (cell_width + gap)
        sheet[top : top + height, left : left + cell_width] = cell
    return sheet
