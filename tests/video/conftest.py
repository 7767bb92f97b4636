"""The clips of `clips.py` as fixtures, in the test's own folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import clips


@pytest.fixture(scope="session")
def picture() -> Callable[[int, tuple[int, int]], np.ndarray]:
    """(number, (height, width)) -> the frame that shows this number, uint8 [H, W, 3]."""
    return clips.picture


@pytest.fixture(scope="session")
def number_of() -> Callable[[Tensor], int]:
    """The number that a decoded frame [3, H, W] shows."""
    return clips.number_of


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """(name, codec, length=40, ...) -> a clip of numbered frames; see `clips.write_clip`."""

    def make(name: str, codec: str = "libx264", *, length: int = 40, turned: int = 0, **given: Any) -> Path:
        return clips.write_clip(tmp_path / name, codec, numbers=range(length), quarters=turned, **given)

    return make


@pytest.fixture
def remux(tmp_path: Path) -> Callable[[Path, str, Callable[[int, bytes], bytes | None]], Path]:
    """(clip, new name, change) -> a copy with each packet's bytes changed, or the packet left out for None."""
    return lambda source, name, change: clips.changed(source, tmp_path / name, change)
