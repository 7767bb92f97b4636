"""Inter-frame affinity: which place of a reference frame each place of the current one looks like.

ObjProp's propagation head, with the weighted inter-frame affinity of ObjProp with attention neck (section 3.3):

    A(p, q)  = softmax over p of r(p)^T W x(q)                 affinity; the columns sum to 1
    G(p, q)  = exp(-|p - q|^2 / sigma^2)                       spatial prior, at inference only
    fg = m^T A,  bg = (1 - m)^T A                              how much of what q looks like lies inside each box
    a  = sigmoid(temperature (fg - bg))                        box attention: softmax over {bg, fg}

| paper | here | shape |
|---|---|---|
| r, x | `reference`, `current`: fused features of the two frames, a row per place | [R, D], [P, D] |
| W | `weight`; the identity is ObjProp | [D, D] |
| m | `inside`: 1 in the cells of each reference box | [K, R] |
| p, q | places of the reference and of the current frame | |

A for 640x384 pixels is 3840 x 3840, 56 MiB. It is never whole here: it is made for some columns at a time, carries m
over, and is dropped; in training the backward pass makes these columns again.
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

Prior = tuple[Float[Tensor, "R 4"], Float[Tensor, "P 4"]]  # of reference and current places; products are log G


def affinity(
    reference: Float[Tensor, "R D"],
    current: Float[Tensor, "P D"],
    prior: Prior | None = None,
    renorm: bool = True,
) -> Float[Tensor, "R P"]:
    """A, or A G with a prior: columns then sum to 1 with `renorm` and to less without.

    The products are neither scaled nor bounded, so they are taken in float32 whatever the precision around.
    """
    with torch.autocast(current.device.type, enabled=False):
        reference, current = reference.float(), current.float()
        if prior is None:
            return (current @ reference.T).softmax(1).T
        near, here = prior
        if renorm:
            return (current @ reference.T + here @ near.T).softmax(1).T
        return ((current @ reference.T).softmax(1) * (here @ near.T).exp()).T


def weighted(current: Float[Tensor, "P D"], weight: Float[Tensor, "D D"]) -> Float[Tensor, "P D"]:
    """W x: on the side of the current frame, so that a history of reference frames is kept as it is."""
    with torch.autocast(current.device.type, enabled=False):
        return current.float() @ weight.float().T


def spatial_prior(
    height: int, width: int, sigma: float, device: torch.device | str = "cpu"
) -> tuple[Float[Tensor, "R 4"], Float[Tensor, "R 4"]]:
    """G over a grid as two tables of four numbers a place, row by row: log G(p, q) = first[p] . second[q].

    -|p - q|^2 = 2 p.q - |p|^2 - |q|^2, so G needs no matrix of its own. `sigma` is in cells.
    """
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    # about the centre, where float32 is finest
    places = torch.stack([y.flatten() - (height - 1) / 2, x.flatten() - (width - 1) / 2], 1) / sigma
    square, one = places.square().sum(1, keepdim=True), torch.ones_like(places[:, :1])
    return torch.cat([2 * places, -square, one], 1), torch.cat([places, one, -square], 1)


def carried(
    reference: Float[Tensor, "R D"],
    current: Float[Tensor, "P D"],
    inside: Float[Tensor, "K R"],
    prior: Prior | None = None,
    renorm: bool = True,
    columns: int = COLUMNS,
) -> tuple[Float[Tensor, "K P"], Float[Tensor, "K P"]]:
    """fg and bg of K boxes. Only `columns` columns of the affinity exist at a time, in the backward pass too."""
    if prior is not None and not renorm:
        return _carried_in_part(reference, current, inside, prior, columns)
    if prior is not None:  # log G is an inner product of four numbers a place, so they join the features
        reference, current = torch.cat([reference.float(), prior[0]], 1), torch.cat([current.float(), prior[1]], 1)
    foreground = attend(current[None], reference[None], inside.T[None], chunk=columns)[0].T
    return foreground, 1 - foreground


def box_attention(
    foreground: Float[Tensor, "*K"], background: Float[Tensor, "*K"], temperature: float = 1.0
) -> Float[Tensor, "*K"]:
    """a. At a temperature of 1 it lies between sigmoid(-1) = 0.269 and sigmoid(1) = 0.731, as the paper trained it."""
    return (temperature * (foreground - background)).sigmoid()


def box_cells(
    boxes: Float[Tensor, "K 4"], size: tuple[int, int], stride: int = 1
) -> Float[Tensor, "K {size[0]} {size[1]}"]:
    """m: 1 in every cell that a box touches, and in one cell at least; `boxes` in pixels, `size` in cells."""
    first = (boxes[:, :2] / stride).floor()
    last = (boxes[:, 2:] / stride).ceil()
    lines = []
    for axis, length in ((1, size[0]), (0, size[1])):
        start = first[:, axis].clamp(0, length - 1)
        end = torch.maximum(last[:, axis], start + 1)
        cells = torch.arange(length, device=boxes.device)
        lines.append((cells >= start[:, None]) & (cells < end[:, None]))
    rows, places = lines
    return (rows[:, :, None] & places[:, None, :]).float()


def _carried_in_part(
    reference: Tensor, current: Tensor, inside: Tensor, prior: Prior, columns: int
) -> tuple[Tensor, Tensor]:
    """fg and bg where columns sum to less than one: what the prior takes away is in neither."""
    parts = []
    with torch.autocast(current.device.type, enabled=False):
        for some, here in zip(current.split(columns), prior[1].split(columns), strict=True):
            matrix = affinity(reference, some, (prior[0], here), renorm=False)
            parts.append(torch.stack([inside @ matrix, (1 - inside) @ matrix]))
    foreground, background = torch.cat(parts, 2)
    return foreground, background


class Affinity(nn.Module):
    """Carries reference boxes over to the current frame, with W where there is one."""

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
            for one in self.weight:
                nn.init.xavier_uniform_(one)

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
        """fg and bg of K boxes of classes `labels`, for the image in place `slot` of its batch."""
        if self.config.weight != "per_class":
            return carried(reference, self.query(current, slot=slot), inside, prior, renorm)
        # one affinity per class that occurs; without objects still one, so that W always takes part
        present = labels.unique().tolist() or [0]
        rows = [(labels == label).nonzero()[:, 0] for label in present]
        parts = [
            torch.stack(carried(reference, self.query(current, label), inside[own], prior, renorm))
            for label, own in zip(present, rows, strict=True)
        ]
        foreground, background = torch.cat(parts, 1)[:, torch.cat(rows).argsort()]
        return foreground, background

    def query(self, current: Float[Tensor, "P D"], label: int = 0, slot: int = 0) -> Float[Tensor, "P D"]:
        """W x for objects of one class, for the image in place `slot` of its batch."""
        kind = self.config.weight
        if self.weight is None or (kind == "per_slot" and not self.training):  # a stream has no slot: the identity
            return current
        if kind == "shared":
            return weighted(current, self.weight)
        return weighted(current, self.weight[label + 1 if kind == "per_class" else slot % self.config.slots])

    def look(
        self,
        reference: Float[Tensor, "R D"],
        current: Float[Tensor, "N D"],
        label: int = 0,
        prior: Prior | None = None,
    ) -> Float[Tensor, "N R"]:
        """Where N places of the current frame look in the reference; each sums to 1."""
        return affinity(reference, self.query(current, label), prior).T


class AffinityConfig(Config):
    """Whether the affinity is weighted: ObjProp's is not."""

    weight: Literal["none", "shared", "per_slot", "per_class"] = "none"
    slots: int = Field(default=4, ge=1)  # per_slot: images per device in training

    def build(self, channels: int, num_classes: int) -> Affinity:
        return Affinity(self, channels, num_classes)
