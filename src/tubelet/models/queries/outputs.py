"""From the masks and classes of all queries to those that are wanted: the frame's part, the best, the one at a point.

Letters: Q queries, T frames, K classes, h w cells of a mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDE = 4  # of mask features


def cut_padding(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut maps of stride 4 to the part that covers the frame.

    If the frame does not end at the border of a cell, the maps are resampled so that they cover the frame exactly.

    Args:
        maps: [Q, T, h, w] over the padded network input.
        size: Height and width of the frame in network pixels.

    Example:
        >>> from tubelet.models.queries.outputs import cut_padding
        >>> cut_padding(torch.zeros(5, 2, 16, 24), size=(60, 90)).shape
        torch.Size([5, 2, 15, 22])
    """
    cells = [max(round(side / STRIDE), 1) for side in size]
    if all(side == STRIDE * n for side, n in zip(size, cells, strict=True)):
        return maps[..., : cells[0], : cells[1]]

    axes: list[Tensor] = []
    for n, side, padded in zip(cells, size, maps.shape[-2:], strict=True):
        centres = (torch.arange(n, device=maps.device) + 0.5) / n * side
        axes.append(centres / (STRIDE * padded) * 2 - 1)
    rows, columns = axes
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # [h, w, (x, y)]
    grid = grid.to(maps.dtype).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def best_queries(probabilities: Tensor, count: int) -> Tensor:
    """Return the queries of [Q, K] whose best class is most probable, at most `count`, the best first.

    Example:
        >>> from tubelet.models.queries.outputs import best_queries
        >>> best_queries(torch.tensor([[0.1, 0.2], [0.7, 0.1], [0.3, 0.4]]), count=2)
        tensor([1, 2])
    """
    return probabilities.amax(1).argsort(descending=True, stable=True)[:count]


def query_at(probabilities: Tensor, mask_logits: Tensor, at: tuple[float, float], size: tuple[int, int]) -> int:
    """Return the query with the largest class probability times mask probability at a point.

    Args:
        probabilities: Class probabilities [Q, K].
        mask_logits: Masks of one frame [Q, h, w].
        at: The point (x, y) in pixels of the frame.
        size: Height and width of the frame.

    Example:
        >>> from tubelet.models.queries.outputs import query_at
        >>> masks = torch.tensor([[[-9.0, 9.0]], [[9.0, -9.0]]])
        >>> query_at(torch.full((2, 3), 0.3), masks, at=(70.0, 10.0), size=(60, 100))
        0
    """
    row = int(at[1] * mask_logits.shape[1] / size[0])
    column = int(at[0] * mask_logits.shape[2] / size[1])
    return int((probabilities.amax(1) * mask_logits[:, row, column].sigmoid()).argmax())
