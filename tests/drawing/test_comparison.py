"""Pictures of a comparison: each system is on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tubelet.core.errors import InputError
from tubelet.drawing.colours import colour
from tubelet.drawing.comparison import accuracy_over_speed, failure_bars

ROWS = {
    "one": {
        "about": "One",
        "trials": [{"AP": 0.2, "fps": 10.0}, {"AP": 0.3, "fps": 12.0}],
        "failures": [{"missed": 4, "false object": 2}, {"missed": 2}],
    },
    "two": {"about": "Two", "trials": [{"AP": 0.5, "fps": 40.0}], "failures": [{"identity switch": 3}]},
}


def has(path: Path, tint: tuple[int, ...]) -> bool:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return bool((np.abs(pixels - tint).max(-1) <= 2).sum() > 20)


@pytest.mark.parametrize("draw", [accuracy_over_speed, failure_bars])
def test_a_system_more_is_a_colour_more(draw, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    few = {"two": ROWS["two"]}
    draw(few, tmp_path / "few.png")
    draw(ROWS, tmp_path / "all.png")
    assert [has(tmp_path / "few.png", colour(n)) for n in (0, 1)] == [True, False]
    assert [has(tmp_path / "all.png", colour(n)) for n in (0, 1)] == [True, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.png", "few.png"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder to write to, found a file"):
        failure_bars(ROWS, tmp_path / "file" / "x.png")
