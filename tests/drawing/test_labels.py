"""Labels: any script, one height, never longer than wanted."""

from __future__ import annotations

import numpy as np
import pytest

from tubelet.drawing.labels import label, text_height


def ink(text: str, height: int = 20) -> int:
    """Pixels of a black label that the letters whiten."""
    return int((label(text, height, (0, 0, 0)) > 128).sum())


def test_letters_of_many_scripts_are_drawn_and_differ() -> None:
    plates = [label(text, 24, (0, 0, 0)) for text in ("Fussganger", "Fußgänger", "собака", "σκύλος", "كلب")]
    assert all((plate > 128).sum() > 200 for plate in plates)
    assert len({plate.tobytes() for plate in plates}) == 5


def test_any_text_can_be_drawn() -> None:
    for text in ("", " ", "自転車", "🚲", "a\nb\tc\x00d", "x" * 10_000):
        plate = label(text, 12, (10, 20, 30))
        assert plate.ndim == 3
        assert plate.shape[1] < 1200


def test_plates_of_one_height_stand_in_one_row() -> None:
    assert len({label(text, 20, (9, 9, 9)).shape[0] for text in ("a", "g", "Å", "|", "自")}) == 1


def test_a_label_is_rendered_once_and_cannot_be_spoiled() -> None:
    plate = label("dog", 20, (1, 2, 3))
    assert label("dog", 20, (1, 2, 3)) is plate
    with pytest.raises(ValueError, match="read-only"):
        plate[0, 0] = 0


def test_letters_stay_inside_their_plate() -> None:
    plate = label("Ågjy|Q", 30, (255, 255, 255))
    assert np.array_equal(np.unique(plate[:, [0, -1]]), [255])
    assert ink("Ågjy|Q", 30) > 0


def test_letters_grow_with_the_frame_and_stay_readable() -> None:
    heights = [text_height(size) for size in ((90, 160), (360, 640), (640, 360), (1080, 1920), (2160, 3840))]
    assert heights[0] == heights[1] == heights[2] == 11
    assert heights[3:] == [32, 65]
