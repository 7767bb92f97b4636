"""Contact sheets: every frame once, in reading order, over its caption."""

from __future__ import annotations

import numpy as np
import pytest

from tubelet.drawing.contact_sheet import PAPER, caption, contact_sheet


def plain(value: int, height: int = 90, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def order(sheet: np.ndarray, values: list[int]) -> list[int]:
    """Values of plain images, in the order in which reading the sheet meets them."""
    places = {value: np.argwhere((sheet == value).all(2)).min(0).tolist() for value in values}
    return sorted(values, key=lambda value: places[value])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 24])
@pytest.mark.parametrize("size", [(90, 160), (160, 90)])
def test_every_frame_is_there_once_in_reading_order(count: int, size: tuple[int, int]) -> None:
    values = [40 + 8 * n for n in range(count)]
    sheet = contact_sheet([plain(value, *size) for value in values], [""] * count, width=1200)
    assert sheet.shape[1] == 1200
    assert sheet.dtype == np.uint8
    assert order(sheet, values) == values
    areas = [int((sheet == value).all(2).sum()) for value in values]
    assert len(set(areas)) == 1
    assert sum(areas) > 0.4 * sheet.shape[0] * sheet.shape[1]


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000)])
def test_frames_of_one_line_make_a_sheet_of_the_usual_size(size: tuple[int, int]) -> None:
    sheet = contact_sheet([plain(100, *size)] * 12, [""] * 12)
    assert sheet.shape[0] < 3000
    assert (sheet == 100).all(2).any()


def test_captions_are_drawn_under_their_frames() -> None:
    with_text = contact_sheet([plain(100)] * 2, ["frame 0", "frame 9"])
    without = contact_sheet([plain(100)] * 2, ["", ""])
    rows, columns = np.nonzero((with_text != without).any(2))
    assert rows.min() > np.argwhere((without == 100).all(2))[:, 0].max()
    assert columns.min() < 400
    assert columns.max() > 800


def test_a_frame_of_another_shape_is_fitted_in_without_distortion() -> None:
    sheet = contact_sheet([plain(60), plain(200, 160, 160)], ["", ""], width=800)
    rows, columns = np.nonzero((sheet == 200).all(2))
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=2)
    assert np.array_equal(sheet[0, 0], PAPER)


def test_a_sheet_that_cannot_be_is_refused() -> None:
    for images, captions, width in (([], [], 800), ([plain(1)], [], 800), ([plain(1)] * 40, [""] * 40, 60)):
        with pytest.raises(ValueError, match=r"captions|narrow"):
            contact_sheet(images, captions, width)


def test_a_caption_says_number_and_time() -> None:
    assert caption(12, 0.4) == "frame 12   0.40 s"
    assert caption(3000, 120.05) == "frame 3000   2:00.05"
