"""Multi-scale deformable attention in plain PyTorch.

Source: Zhu et al., Deformable DETR, ICLR 2021, Eq. 3.

    out(q) = sum_h W_h [ sum_l sum_p A_hlqp W'_h x^l( ref_q + offset_hlqp / (W_l, H_l) ) ]    sum_lp A_hlqp = 1

x^l(.) is the bilinear value of level l, zero outside. Letters: B batch, Q queries, L cells of all
levels, h heads, l levels, p points, D channels, d = D / h; A -> weights, W' -> value_proj, W ->
output_proj.

A sample is a weighted sum of four cells, and the output is one of l p samples: a weighted sum of 4
l p rows of a table, which is what `embedding_bag` computes. On a CPU that takes a fraction of the
time of `grid_sample`, because samples are never stored (`benchmarks/bench_deformable.py`).
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
    """Return the centre of every cell of every level as (x, y) in units of the frame, 0 to 1.

    Example:
        >>> from tubelet.attention.deformable import reference_points
        >>> reference_points([(1, 2), (1, 1)], torch.device("cpu"))
        tensor([[0.2500, 0.5000],
                [0.7500, 0.5000],
                [0.5000, 0.5000]])
    """
    points = []
    for height, width in shapes:
        y, x = torch.meshgrid(_centres(height, device), _centres(width, device), indexing="ij")
        points.append(torch.stack([x.flatten(), y.flatten()], -1))
    return torch.cat(points)


def corners(
    locations: Float[Tensor, "B Q h l p 2"], shapes: Shapes
) -> tuple[Int[Tensor, "B Q h l p 4"], Float[Tensor, "B Q h l p 4"]]:
    """Find the four cells around each location, as rows of `bordered`, and their weights.

    Locations are (x, y) in units of the frame; those outside, or NaN, fall into the border of
    zeros.

    Example:
        >>> from tubelet.attention.deformable import corners
        >>> location = torch.tensor([0.5, 0.5]).view(1, 1, 1, 1, 1, 2)
        >>> rows, weights = corners(location, [(2, 2)])
        >>> rows.flatten(), weights.flatten()
        (tensor([ 6,  7, 11, 12], dtype=torch.int32), tensor([0.2500, 0.2500, 0.2500, 0.2500]))
    """
    device = locations.device
    size = torch.tensor([(w, h) for h, w in shapes], device=device)[:, None]  # [l, 1, 2]
    lowest = torch.full_like(size, -1)
    row_length = (size + 3)[..., 0]  # of a bordered level
    level_sizes = [(h + 3) * (w + 3) for h, w in shapes]
    level_starts = torch.tensor([0, *level_sizes][:-1], device=device).cumsum(0)[:, None]

    position = torch.nan_to_num(locations * size - 0.5, nan=-1.0).clamp(min=lowest, max=size)
    low = position.floor()
    x, y = (low.int() + 1).unbind(-1)
    first = (y * row_length + x + level_starts).int()
    below = first + row_length.int()
    rows = torch.stack([first, first + 1, below, below + 1], -1)

    right, down = (position - low).unbind(-1)
    both = right * down
    weights = torch.stack([1 - right - down + both, right - both, down - both, both], -1)
    return rows, weights


def bordered(values: Float[Tensor, "B L h d"], shapes: Shapes) -> Float[Tensor, "B M h d"]:
    """Pad every level with one row and column of zeros before it and two after it.

    Example:
        >>> from tubelet.attention.deformable import bordered
        >>> bordered(torch.ones(1, 2, 1, 1), [(1, 2)])[0, :, 0, 0].view(4, 5)
        tensor([[0., 0., 0., 0., 0.],
                [0., 1., 1., 0., 0.],
                [0., 0., 0., 0., 0.],
                [0., 0., 0., 0., 0.]])
    """
    levels = values.split([h * w for h, w in shapes], 1)
    padded = []
    for level, shape in zip(levels, shapes, strict=True):
        cells = level.unflatten(1, shape)  # [B, H, W, h, d]
        padded.append(F.pad(cells, (0, 0, 0, 0, 1, 2, 1, 2)).flatten(1, 2))
    return torch.cat(padded, 1)


def deformable_attention(
    values: Float[Tensor, "B L h d"],
    shapes: Shapes,
    locations: Float[Tensor, "B Q h l p 2"],
    weights: Float[Tensor, "B Q h l p"],
) -> Float[Tensor, "B Q D"]:
    """Compute Eq. 3 without its projections: each head's weighted sum of bilinear samples.

    Args:
        values: W' x of the cells of all levels.
        shapes: Height and width of each level.
        locations: Where to sample, (x, y) in units of the frame.
        weights: A of Eq. 3.

    Example:
        >>> from tubelet.attention.deformable import deformable_attention
        >>> values = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)  # one level of 1 x 2 cells
        >>> location = torch.tensor([0.5, 0.5]).view(1, 1, 1, 1, 1, 2)
        >>> deformable_attention(values, [(1, 2)], location, weights=torch.ones(1, 1, 1, 1, 1))
        tensor([[[2.]]])
    """
    table = bordered(values, shapes)
    batch, cells, heads, channels = table.shape
    rows, shares = corners(locations, shapes)

    # row of the table [B M h, d]: (b M + cell) h + head
    batches = torch.arange(batch, device=values.device, dtype=torch.int32)
    first = batches.view(-1, 1, 1, 1, 1, 1) * (cells * heads)
    head = torch.arange(heads, device=values.device, dtype=torch.int32).view(1, 1, -1, 1, 1, 1)
    indices = (rows * heads + (first + head)).flatten(3).flatten(0, 2)  # [B Q h, 4 l p]
    factors = (shares * weights[..., None]).flatten(3).flatten(0, 2).to(table.dtype)

    flat_table = table.reshape(-1, channels)
    summed = F.embedding_bag(indices, flat_table, mode="sum", per_sample_weights=factors)
    return summed.view(batch, -1, heads * channels)


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention: queries sample learned points around their references.

    Example:
        >>> from tubelet.attention.deformable import DeformableConfig, reference_points
        >>> attention = DeformableConfig(heads=2, points=4).build(channels=8, levels=2)
        >>> shapes = [(4, 6), (2, 3)]
        >>> references = reference_points(shapes, torch.device("cpu"))
        >>> tokens = torch.rand(1, 30, 8)
        >>> attention(tokens, references, tokens, shapes).shape
        torch.Size([1, 30, 8])
    """

    def __init__(self, config: DeformableConfig, channels: int, levels: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.levels = levels
        self.points = config.points
        samples = config.heads * levels * config.points
        self.sampling_offsets = nn.Linear(channels, 2 * samples)
        self.attention_weights = nn.Linear(channels, samples)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self._reset_parameters()

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        references: Float[Tensor, "Q 2"],
        tokens: Float[Tensor, "B L D"],
        shapes: Shapes,
    ) -> Float[Tensor, "B Q D"]:
        """Attend to points around the references.

        Args:
            queries: With their positions added.
            references: One point per query, (x, y) in units of the frame.
            tokens: Cells of all levels, without positions.
            shapes: Height and width of each level.
        """
        split = (self.heads, self.levels, self.points)
        size = torch.tensor([(w, h) for h, w in shapes], device=queries.device)[:, None]  # [l, 1, 2]
        offsets = self.sampling_offsets(queries).unflatten(-1, (*split, 2)) / size
        locations = references[:, None, None, None] + offsets

        weights = self.attention_weights(queries).unflatten(-1, (self.heads, -1)).softmax(-1)
        weights = weights.unflatten(-1, (self.levels, self.points))

        values = self.value_proj(tokens).unflatten(-1, (self.heads, -1))
        return self.output_proj(deformable_attention(values, shapes, locations, weights))

    def _reset_parameters(self) -> None:
        """Point head i in direction i of a circle, 1, 2, ... cells away, with equal weights."""
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, self.points + 1, dtype=torch.float32)
        bias = directions[:, None, None] * distances[:, None]  # [h, 1, p, 2]
        with torch.no_grad():
            self.sampling_offsets.weight.zero_()
            self.sampling_offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())
            self.attention_weights.weight.zero_()
            self.attention_weights.bias.zero_()
            for projection in (self.value_proj, self.output_proj):
                nn.init.xavier_uniform_(projection.weight)
                projection.bias.zero_()


class DeformableConfig(Config):
    """Settings of deformable attention; defaults from Deformable DETR, Sec. 4.

    Example:
        >>> from tubelet.attention.deformable import DeformableConfig
        >>> DeformableConfig(points=2).build(channels=64, levels=3).attention_weights.out_features
        48
    """

    heads: int = Field(default=8, ge=1)
    points: int = Field(default=4, ge=1)

    def build(self, channels: int, levels: int) -> DeformableAttention:
        """Build the attention for tokens of this many channels on this many levels."""
        return DeformableAttention(self, channels, levels)


def _centres(cells: int, device: torch.device) -> Tensor:
    return (torch.arange(cells, device=device, dtype=torch.float32) + 0.5) / cells
