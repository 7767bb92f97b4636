"""Multi-scale deformable attention in plain PyTorch.

Source: Zhu et al., Deformable DETR, ICLR 2021, Eq. 3.

    out(q) = sum_h W_h [ sum_l sum_p A_hlqp W'_h x^l( ref_q + offset_hlqp / (W_l, H_l) ) ]    sum_lp A_hlqp = 1

x^l(.) is the bilinear value of level l, zero outside. Letters: B batch, Q queries, L cells of all levels, h heads,
l levels, p points, D channels, d = D / h; A -> weights, W' -> value_proj, W -> output_proj.

A sample is a weighted sum of four cells, and the output one of l p samples: a sum of 4 l p rows of a table, which is
what `embedding_bag` computes. On a CPU that takes a fraction of the time of sampling with `grid_sample`, because no
sample is ever written down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from tubelet.core.config import Config

Shapes = Sequence[tuple[int, int]]  # height and width of each level


def reference_points(shapes: Shapes, device: torch.device) -> Float[Tensor, "L 2"]:
    """The centre of every cell of every level as (x, y) in units of the frame, 0 to 1."""
    points = []
    for height, width in shapes:
        y, x = torch.meshgrid(_centres(height, device), _centres(width, device), indexing="ij")
        points.append(torch.stack([x.flatten(), y.flatten()], -1))
    return torch.cat(points)


def corners(
    locations: Float[Tensor, "B Q h l p 2"], shapes: Shapes
) -> tuple[Int[Tensor, "B Q h l p 4"], Float[Tensor, "B Q h l p 4"]]:
    """The four cells around each location, as rows of `bordered` levels, and their bilinear shares.

    Locations are (x, y) in units of the frame; one that is outside, or not a number, is a place in the border.
    """
    device = locations.device
    size = torch.tensor([(w, h) for h, w in shapes], device=device)[:, None]  # [l, 1, 2]
    border = size + 3
    starts = torch.tensor([0, *((h + 3) * (w + 3) for h, w in shapes)][:-1], device=device).cumsum(0)[:, None]
    place = torch.nan_to_num(locations * size - 0.5, nan=-1.0).clamp(min=torch.full_like(size, -1), max=size)
    low = place.floor()
    share = place - low
    x, y = (low.int() + 1).unbind(-1)
    first = (y * border[..., 0] + x + starts).int()
    rows = torch.stack([first, first + 1, first + border[..., 0].int(), first + border[..., 0].int() + 1], -1)
    right, down = share.unbind(-1)
    both = right * down
    return rows, torch.stack([1 - right - down + both, right - both, down - both, both], -1)


def bordered(values: Float[Tensor, "B L h d"], shapes: Shapes) -> Float[Tensor, "B M h d"]:
    """Every level with a row and a column of zeros before it and two after it, so that no sample falls off."""
    parts = values.split([h * w for h, w in shapes], 1)
    return torch.cat(
        [
            F.pad(part.unflatten(1, shape), (0, 0, 0, 0, 1, 2, 1, 2)).flatten(1, 2)
            for part, shape in zip(parts, shapes, strict=True)
        ],
        1,
    )


def deformable_attention(
    values: Float[Tensor, "B L h d"],
    shapes: Shapes,
    locations: Float[Tensor, "B Q h l p 2"],
    weights: Float[Tensor, "B Q h l p"],
) -> Float[Tensor, "B Q D"]:
    """Eq. 3 without its projections: each head's weighted sum of bilinear samples, heads side by side."""
    table = bordered(values, shapes)
    batch, cells, heads, channels = table.shape
    rows, shares = corners(locations, shapes)
    # row of the table [B M h, d]: (b M + cell) h + head
    first = torch.arange(batch, device=values.device, dtype=torch.int32).view(-1, 1, 1, 1, 1, 1) * (cells * heads)
    head = torch.arange(heads, device=values.device, dtype=torch.int32).view(1, 1, -1, 1, 1, 1)
    picked = (rows * heads + (first + head)).flatten(3).flatten(0, 2)  # [B Q h, 4 l p]
    shares = (shares * weights[..., None]).flatten(3).flatten(0, 2)
    summed = F.embedding_bag(picked, table.reshape(-1, channels), mode="sum", per_sample_weights=shares.to(table.dtype))
    return summed.view(batch, -1, heads * channels)


class DeformableAttention(nn.Module):
    """Every query looks at a few points around its reference on every level, and learns where."""

    def __init__(self, config: DeformableConfig, channels: int, levels: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = config.heads, levels, config.points
        samples = config.heads * levels * config.points
        self.sampling_offsets = nn.Linear(channels, 2 * samples)
        self.attention_weights = nn.Linear(channels, samples)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self._start()

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        references: Float[Tensor, "Q 2"],
        tokens: Float[Tensor, "B L D"],
        shapes: Shapes,
    ) -> Float[Tensor, "B Q D"]:
        """`queries` carry their position, `tokens` do not."""
        split = (self.heads, self.levels, self.points)
        size = torch.tensor([(w, h) for h, w in shapes], device=queries.device)[:, None]  # [l, 1, 2]
        offsets = self.sampling_offsets(queries).unflatten(-1, (*split, 2)) / size
        weights = self.attention_weights(queries).unflatten(-1, (self.heads, -1)).softmax(-1).unflatten(-1, split[1:])
        values = self.value_proj(tokens).unflatten(-1, (self.heads, -1))
        locations = references[:, None, None, None] + offsets
        return self.output_proj(deformable_attention(values, shapes, locations, weights))

    def _start(self) -> None:
        """Head i looks in direction i of a circle, its points 1, 2, ... cells away; all weigh the same."""
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        reach = torch.arange(1, self.points + 1, dtype=torch.float32)
        bias = directions[:, None, None] * reach[:, None]  # [h, 1, p, 2]
        with torch.no_grad():
            self.sampling_offsets.weight.zero_()
            self.sampling_offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())
            self.attention_weights.weight.zero_()
            self.attention_weights.bias.zero_()
            for projection in (self.value_proj, self.output_proj):
                nn.init.xavier_uniform_(projection.weight)
                projection.bias.zero_()


class DeformableConfig(Config):
    """Eight heads with four points on each level (Deformable DETR, Sec. 4)."""

    heads: int = Field(default=8, ge=1)
    points: int = Field(default=4, ge=1)

    def build(self, channels: int, levels: int) -> DeformableAttention:
        return DeformableAttention(self, channels, levels)


def _centres(cells: int, device: torch.device) -> Tensor:
    return (torch.arange(cells, device=device, dtype=torch.float32) + 0.5) / cells
