"""Feature maps of other frames that attention reads, and which of their cells show image.

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
class FrameFeatures:
    """The raw pyramid of one frame, before any attention, as a stream stores it.

    Example:
        >>> from tubelet.models.rcnn.context import FrameFeatures
        >>> first = FrameFeatures(index=0, maps=[torch.zeros(1, 8, 4, 6)], size=(16, 24))
        >>> second = FrameFeatures(index=1, maps=[torch.zeros(1, 8, 4, 5)], size=(16, 20))
        >>> first.like(second)
        False
    """

    index: int
    maps: list[Tensor]  # [1, C, H/s, W/s]
    size: Size

    def like(self, other: FrameFeatures) -> bool:
        """Whether both frames have maps of one size, so that attention can read them together."""
        return self.size == other.size and self.maps[0].shape == other.maps[0].shape


class Support(NamedTuple):
    """The support maps that object-level attention of one image reads.

    Example:
        >>> from tubelet.models.rcnn.context import Support
        >>> support = Support(maps=torch.zeros(2, 8, 4, 6), valid=None)
        >>> len(support.maps)
        2
    """

    maps: Tensor  # [S, C, h, w], one level of S support frames, raw
    valid: Tensor | None  # bool [S, h, w], True for image, False for padding; None: image everywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The frames that B images attend to: raw maps of S frames for each.

    Example:
        >>> from tubelet.models.rcnn.context import Context
        >>> maps = [torch.zeros(3, 8, 4, 6)]  # one level of three frames
        >>> sizes = [(16, 24), (16, 24), (16, 20)]
        >>> context = Context.of_batch(maps, sizes, rows=[[1, 2]])  # frame 0 attends to both others
        >>> others, valid = context.at(level=0, stride=4)
        >>> others.shape, valid[0, :, 0].int().tolist()
        (torch.Size([1, 2, 8, 4, 6]), [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    """

    maps: list[Tensor]  # [B, S, C, H/s, W/s] per level
    sizes: list[list[Size]]  # [B][S]

    @classmethod
    def of_batch(cls, maps: list[Tensor], sizes: list[Size], rows: list[list[int]]) -> Context:
        """Take frames of a batch as context of other frames of it.

        Args:
            maps: The batch's maps, [F, C, H/s, W/s] per level.
            sizes: Size of each of the F frames.
            rows: For each of B images, the positions in the batch of its S context frames.
        """
        levels = [level[torch.tensor(rows)] for level in maps]
        return cls(maps=levels, sizes=[[sizes[i] for i in row] for row in rows])

    @classmethod
    def of_frames(cls, frames: list[FrameFeatures]) -> Context:
        """Take stored frames as the context of one image."""
        levels = zip(*(frame.maps for frame in frames), strict=True)
        maps = [torch.cat(level)[None] for level in levels]
        return cls(maps=maps, sizes=[[frame.size for frame in frames]])

    def at(self, level: int, stride: int) -> tuple[Tensor, Tensor | None]:
        """Return maps [B, S, C, h, w] of a level and which cells [B, S, h, w] are image.

        The second is None where there is no padding.
        """
        maps = self.maps[level]
        shape = (maps.shape[-2], maps.shape[-1])
        return maps, inside(self.sizes, shape, stride, maps.device)

    def support(self, level: int, stride: int) -> Support:
        """Return one level of the context of a single image (B = 1)."""
        maps, valid = self.at(level, stride)
        return Support(maps[0], None if valid is None else valid[0])


def positions(levels: tuple[str, ...], strides: list[int]) -> dict[int, int]:
    """Map positions in the pyramid to strides, for levels named P2 (stride 4) to P6 (stride 64).

    Raises:
        ConfigError: The pyramid does not have one of the levels.

    Example:
        >>> from tubelet.models.rcnn.context import positions
        >>> positions(("P3", "P4"), strides=[4, 8, 16])
        {1: 8, 2: 16}
    """
    position_of = {f"P{stride.bit_length() - 1}": i for i, stride in enumerate(strides)}
    for level in levels:
        if level not in position_of:
            names = ", ".join(position_of)
            raise ConfigError(f"levels: this detector's pyramid has {names}, not {level}")
    return {position_of[level]: strides[position_of[level]] for level in levels}


def inside(sizes: list[list[Size]], shape: Size, stride: int, device: torch.device) -> Tensor | None:
    """Mark the cells of padded maps that show image; None where there is no padding.

    Args:
        sizes: Height and width in input pixels of S frames for each of B images.
        shape: Height and width of the map in cells.
        stride: Input pixels per cell.
        device: Device of the result.

    Returns:
        Bool [B, S, h, w].

    Example:
        >>> from tubelet.models.rcnn.context import inside
        >>> inside([[(8, 4)]], shape=(2, 3), stride=4, device=torch.device("cpu"))
        tensor([[[[ True, False, False],
                  [ True, False, False]]]])
    """
    height, width = shape
    extents = [[(-(-h // stride), -(-w // stride)) for h, w in row] for row in sizes]  # rounded up
    if all(rows >= height and columns >= width for row in extents for rows, columns in row):
        return None

    cells = torch.tensor(extents, device=device)  # [B, S, 2]
    rows = torch.arange(height, device=device) < cells[..., 0, None]  # [B, S, h]
    columns = torch.arange(width, device=device) < cells[..., 1, None]  # [B, S, w]
    return rows[..., :, None] & columns[..., None, :]
