"""Maps of other frames that attention looks at, and which of their cells show image.

Letters: B images, S support frames, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tubelet.core.errors import ConfigError

Size = tuple[int, int]  # height, width in input pixels, without padding


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The raw maps of one frame, as a stream remembers them."""

    index: int
    maps: list[Tensor]  # [1, C, H/s, W/s]
    size: Size

    def like(self, other: Kept) -> bool:
        """Whether both frames have maps of one size, so that one can be read beside the other."""
        return self.size == other.size and self.maps[0].shape == other.maps[0].shape


class Support(NamedTuple):
    """What object-level attention of one image looks at."""

    maps: Tensor  # [S, C, h, w], one level of S support frames, raw
    valid: Tensor | None  # bool [S, h, w], where there is image and not padding; None: everywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What B images look at: raw maps of S frames each."""

    maps: list[Tensor]  # [B, S, C, H/s, W/s] per level
    sizes: list[list[Size]]  # [B][S]

    @classmethod
    def of_batch(cls, maps: list[Tensor], sizes: list[Size], rows: list[list[int]]) -> Context:
        """Frames of one batch as context of others, by position."""
        return cls(maps=[level[torch.tensor(rows)] for level in maps], sizes=[[sizes[i] for i in row] for row in rows])

    @classmethod
    def of_kept(cls, kept: list[Kept]) -> Context:
        """Remembered frames as the context of one image."""
        levels = zip(*(frame.maps for frame in kept), strict=True)
        return cls(maps=[torch.cat(level)[None] for level in levels], sizes=[[frame.size for frame in kept]])

    def at(self, level: int, stride: int) -> tuple[Tensor, Tensor | None]:
        """Maps [B, S, C, h, w] of a level, and which cells [B, S, h, w] are image, None where all are."""
        maps = self.maps[level]
        return maps, inside(self.sizes, (maps.shape[-2], maps.shape[-1]), stride, maps.device)

    def support(self, level: int, stride: int) -> Support:
        """A level of the context of one image, B = 1."""
        maps, valid = self.at(level, stride)
        return Support(maps[0], None if valid is None else valid[0])


def positions(levels: tuple[str, ...], strides: list[int]) -> dict[int, int]:
    """Place in the pyramid -> stride, of levels named P2 to P6. Raises ConfigError for one that the pyramid lacks."""
    named = {f"P{stride.bit_length() - 1}": place for place, stride in enumerate(strides)}
    for level in levels:
        if level not in named:
            raise ConfigError(f"levels: this detector's pyramid has {', '.join(named)}, not {level}")
    return {named[level]: strides[named[level]] for level in levels}


def inside(sizes: list[list[Size]], shape: Size, stride: int, device: torch.device) -> Tensor | None:
    """Cells [B, S, h, w] of a map that show image and not padding; None where there is no padding."""
    height, width = shape
    reach = torch.tensor([[[-(-h // stride), -(-w // stride)] for h, w in row] for row in sizes], device=device)
    if bool((reach[..., 0] >= height).all() and (reach[..., 1] >= width).all()):
        return None
    rows = torch.arange(height, device=device) < reach[..., 0, None]  # [B, S, h]
    columns = torch.arange(width, device=device) < reach[..., 1, None]
    return rows[..., :, None] & columns[..., None, :]
