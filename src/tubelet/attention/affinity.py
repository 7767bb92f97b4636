"""Inter-frame affinity: which cell of a reference frame each cell of the current frame looks like.

ObjProp's propagation head, with the weighted inter-frame affinity of ObjProp with attention neck
(section 3.3):

    A(p, q)  = softmax over p of r(p)^T W x(q)                 affinity; the columns sum to 1
    G(p, q)  = exp(-|p - q|^2 / sigma^2)                       spatial prior, at inference only
    fg = m^T A,  bg = (1 - m)^T A                              weight of q inside and outside each box
    a  = sigmoid(temperature (fg - bg))                        box attention: softmax over {bg, fg}

| paper | here | shape |
|---|---|---|
| r, x | `reference`, `current`: fused features of the two frames, a row per cell | [R, D], [P, D] |
| W | `weight`; the identity is ObjProp | [D, D] |
| m | `inside`: 1 in the cells of each reference box | [K, R] |
| p, q | cells of the reference and of the current frame | |

A for 640x384 pixels is 3840 x 3840, 56 MiB. It never exists whole here: some columns are computed
at a time, applied to m and dropped; in training the backward pass computes them again.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from tubelet.attention.fused import attend
from tubelet.core.config import Config

COLUMNS = 512  # of the affinity that exist at a time: 7.5 MiB for 640x384 pixels

# tables of the reference and the current frame; their products are log G
Prior = tuple[Float[Tensor, "R 4"], Float[Tensor, "P 4"]]


def affinity(
    reference: Float[Tensor, "R D"],
    current: Float[Tensor, "P D"],
    prior: Prior | None = None,
    renorm: bool = True,
) -> Float[Tensor, "R P"]:
    """Compute A, or A G with a prior.

    The logits are neither scaled nor bounded, so they are computed in float32 even under autocast.

    Args:
        reference: Features of the reference cells.
        current: Features of the current cells.
        prior: From `spatial_prior`.
        renorm: Normalise A G so that columns sum to 1 again; without it they sum to less.

    Example:
        >>> from tubelet.attention.affinity import affinity
        >>> features = 9 * torch.eye(3)
        >>> affinity(features, features).argmax(0)
        tensor([0, 1, 2])
    """
    with torch.autocast(current.device.type, enabled=False):
        reference = reference.float()
        current = current.float()
        if prior is None:
            return (current @ reference.T).softmax(1).T

        reference_prior, current_prior = prior
        if renorm:
            return (current @ reference.T + current_prior @ reference_prior.T).softmax(1).T
        return ((current @ reference.T).softmax(1) * (current_prior @ reference_prior.T).exp()).T


def weighted(current: Float[Tensor, "P D"], weight: Float[Tensor, "D D"]) -> Float[Tensor, "P D"]:
    """Compute W x for the current frame, so that stored reference features need no change.

    Example:
        >>> from tubelet.attention.affinity import weighted
        >>> weighted(torch.ones(1, 2), torch.tensor([[1.0, 0.0], [2.0, 3.0]]))
        tensor([[1., 5.]])
    """
    with torch.autocast(current.device.type, enabled=False):
        return current.float() @ weight.float().T


def spatial_prior(
    height: int, width: int, sigma: float, device: torch.device | str = "cpu"
) -> tuple[Float[Tensor, "R 4"], Float[Tensor, "R 4"]]:
    """Return G of a grid as two tables of four numbers per cell: log G(p, q) = first[p] .
    second[q].

    -|p - q|^2 = 2 p.q - |p|^2 - |q|^2, so G needs no matrix of its own. Cells are numbered row by
    row; `sigma` is in cells.

    Example:
        >>> from tubelet.attention.affinity import spatial_prior
        >>> first, second = spatial_prior(1, 3, sigma=1.0)
        >>> (first @ second.T).round()  # minus the squared distances
        tensor([[ 0., -1., -4.],
                [-1.,  0., -1.],
                [-4., -1.,  0.]])
    """
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")

    # relative to the centre, where float32 is most precise
    centred = [y.flatten() - (height - 1) / 2, x.flatten() - (width - 1) / 2]
    points = torch.stack(centred, 1) / sigma
    square = points.square().sum(1, keepdim=True)
    ones = torch.ones_like(points[:, :1])
    return torch.cat([2 * points, -square, ones], 1), torch.cat([points, ones, -square], 1)


def carried(
    reference: Float[Tensor, "R D"],
    current: Float[Tensor, "P D"],
    inside: Float[Tensor, "K R"],
    prior: Prior | None = None,
    renorm: bool = True,
    columns: int = COLUMNS,
) -> tuple[Float[Tensor, "K P"], Float[Tensor, "K P"]]:
    """Compute fg and bg of K boxes.

    Only `columns` columns of the affinity exist at a time, in the backward pass too.

    Args:
        reference: Features of the reference cells.
        current: Features of the current cells.
        inside: 1 in the reference cells of each box, from `box_cells`.
        prior: From `spatial_prior`.
        renorm: As for `affinity`.
        columns: Columns of the affinity that exist at a time.

    Example:
        >>> from tubelet.attention.affinity import carried
        >>> features = 9 * torch.eye(3)
        >>> inside = torch.tensor([[1.0, 0.0, 0.0]])
        >>> foreground, background = carried(features, features, inside)
        >>> foreground.round()  # the same cell again
        tensor([[1., 0., 0.]])
    """
    if prior is not None and not renorm:
        return _carried_without_renorm(reference, current, inside, prior, columns)

    if prior is not None:  # log G is a product of four numbers per cell, so these join the features
        reference_prior, current_prior = prior
        reference = torch.cat([reference.float(), reference_prior], 1)
        current = torch.cat([current.float(), current_prior], 1)
    foreground = attend(current[None], reference[None], inside.T[None], chunk=columns)[0].T
    return foreground, 1 - foreground


def box_attention(
    foreground: Float[Tensor, "*K"], background: Float[Tensor, "*K"], temperature: float = 1.0
) -> Float[Tensor, "*K"]:
    """Compute a from fg and bg.

    At a temperature of 1 it is between sigmoid(-1) = 0.269 and sigmoid(1) = 0.731, as the paper
    trained it.

    Example:
        >>> from tubelet.attention.affinity import box_attention
        >>> box_attention(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.5, 0.0]))
        tensor([0.2689, 0.5000, 0.7311])
    """
    return (temperature * (foreground - background)).sigmoid()


def box_cells(
    boxes: Float[Tensor, "K 4"], size: tuple[int, int], stride: int = 1
) -> Float[Tensor, "K {size[0]} {size[1]}"]:
    """Compute m: 1 in every cell that a box touches; at least one cell per box.

    Args:
        boxes: (x1, y1, x2, y2) in pixels.
        size: Height and width in cells.
        stride: Pixels per cell.

    Example:
        >>> from tubelet.attention.affinity import box_cells
        >>> box_cells(torch.tensor([[4.0, 0.0, 17.0, 8.0]]), size=(2, 4), stride=8)
        tensor([[[1., 1., 1., 0.],
                 [0., 0., 0., 0.]]])
    """
    first = (boxes[:, :2] / stride).floor()
    last = (boxes[:, 2:] / stride).ceil()
    height, width = size
    rows = _between(first[:, 1], last[:, 1], height)
    columns = _between(first[:, 0], last[:, 0], width)
    return (rows[:, :, None] & columns[:, None, :]).float()


def _between(first: Tensor, last: Tensor, length: int) -> Tensor:
    """The cells of an axis from first up to last, bool [K, length]; at least one."""
    start = first.clamp(0, length - 1)
    stop = torch.maximum(last, start + 1)
    cells = torch.arange(length, device=first.device)
    return (cells >= start[:, None]) & (cells < stop[:, None])


def _carried_without_renorm(
    reference: Tensor, current: Tensor, inside: Tensor, prior: Prior, columns: int
) -> tuple[Tensor, Tensor]:
    """fg and bg from columns that sum to less than one: what the prior removes is in neither."""
    reference_prior, current_prior = prior
    parts = []
    with torch.autocast(current.device.type, enabled=False):
        chunks = zip(current.split(columns), current_prior.split(columns), strict=True)
        for some, some_prior in chunks:
            matrix = affinity(reference, some, (reference_prior, some_prior), renorm=False)
            parts.append(torch.stack([inside @ matrix, (1 - inside) @ matrix]))
    foreground, background = torch.cat(parts, 2)
    return foreground, background


class Affinity(nn.Module):
    """Carries reference boxes over to the current frame, with a learned W if configured.

    Example:
        >>> from tubelet.attention.affinity import AffinityConfig
        >>> module = AffinityConfig(weight="shared").build(channels=3, num_classes=2)
        >>> features, inside = 9 * torch.eye(3), torch.tensor([[1.0, 0.0, 0.0]])
        >>> foreground, background = module(features, features, inside, labels=torch.tensor([0]))
        >>> foreground.detach().round()
        tensor([[1., 0., 0.]])
    """

    def __init__(self, config: AffinityConfig, channels: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.weight: nn.Parameter | None = None
        if config.weight == "shared":
            self.weight = nn.Parameter(torch.eye(channels))
        elif config.weight == "per_class":
            self.weight = nn.Parameter(torch.eye(channels).repeat(num_classes + 1, 1, 1))
        elif config.weight == "per_slot":
            self.weight = nn.Parameter(torch.empty(config.slots, channels, channels))
            for matrix in self.weight:
                nn.init.xavier_uniform_(matrix)

    def forward(
        self,
        reference: Float[Tensor, "R D"],
        current: Float[Tensor, "P D"],
        inside: Float[Tensor, "K R"],
        labels: Int[Tensor, "K"],
        slot: int = 0,
        prior: Prior | None = None,
        renorm: bool = True,
    ) -> tuple[Float[Tensor, "K P"], Float[Tensor, "K P"]]:
        """Compute fg and bg of K boxes.

        Args:
            reference: Features of the reference cells.
            current: Features of the current cells.
            inside: 1 in the reference cells of each box, from `box_cells`.
            labels: Class of each box.
            slot: Position of the image in its batch.
            prior: From `spatial_prior`.
            renorm: As for `affinity`.
        """
        if self.config.weight != "per_class":
            return carried(reference, self.query(current, slot=slot), inside, prior, renorm)

        # one affinity per class that occurs; without objects still one, so that W always takes part
        present = labels.unique().tolist() or [0]
        boxes_of_class = [(labels == label).nonzero()[:, 0] for label in present]
        parts = []
        for label, boxes in zip(present, boxes_of_class, strict=True):
            query = self.query(current, label)
            parts.append(torch.stack(carried(reference, query, inside[boxes], prior, renorm)))
        original_order = torch.cat(boxes_of_class).argsort()
        foreground, background = torch.cat(parts, 1)[:, original_order]
        return foreground, background

    def query(
        self,
        current: Float[Tensor, "P D"],
        label: int = 0,
        slot: int = 0,
    ) -> Float[Tensor, "P D"]:
        """Compute W x for objects of one class, in the image at position `slot` of its batch."""
        kind = self.config.weight
        if self.weight is None:
            return current
        if kind == "shared":
            return weighted(current, self.weight)
        if kind == "per_class":
            return weighted(current, self.weight[label + 1])
        if not self.training:  # a stream has no batch positions: the identity
            return current
        return weighted(current, self.weight[slot % self.config.slots])

    def look(
        self,
        reference: Float[Tensor, "R D"],
        current: Float[Tensor, "N D"],
        label: int = 0,
        prior: Prior | None = None,
    ) -> Float[Tensor, "N R"]:
        """Return the affinities of N current cells with the reference; each row sums to 1."""
        return affinity(reference, self.query(current, label), prior).T


class AffinityConfig(Config):
    """Whether and how the affinity is weighted; ObjProp's is not.

    Example:
        >>> from tubelet.attention.affinity import AffinityConfig
        >>> AffinityConfig(weight="per_class").build(channels=16, num_classes=40).weight.shape
        torch.Size([41, 16, 16])
    """

    weight: Literal["none", "shared", "per_slot", "per_class"] = "none"
    slots: int = Field(default=4, ge=1)  # per_slot: images per device in training

    def build(self, channels: int, num_classes: int) -> Affinity:
        """Build the module for features of this many channels."""
        return Affinity(self, channels, num_classes)
