"""Fixtures of this room: a cache folder of its own for every test, and a small network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tubelet.engines.graph import Graph


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of exported graphs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tubelet" / "graphs"


class SmallNetwork(nn.Module):
    """Two maps of images or regions [N, 3, h, w]."""

    def __init__(self, *, rows: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 2, 3, stride=2, padding=1)
        self.graph = Graph("maps", self, self.maps, rows=rows)

    def maps(self, pixels: Tensor) -> tuple[Tensor, ...]:
        first = self.first(pixels).relu()
        return first, self.second(first)


@pytest.fixture
def network() -> SmallNetwork:
    """The small network for regions."""
    torch.manual_seed(0)
    return SmallNetwork(rows=True).eval()


@pytest.fixture
def image_network() -> SmallNetwork:
    """The small network for images."""
    torch.manual_seed(0)
    return SmallNetwork(rows=False).eval()
