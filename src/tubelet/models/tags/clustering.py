"""From tags to objects: foreground cells whose tags lie around the same value are one object, in all frames.

The paper does not say how tags are grouped; this is our way (docs/papers/tags.md). Densities are taken at the values
that occur, so tags of any number of dimensions are grouped alike, and their range does not matter.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from tubelet.core.config import Config

MOST_BINS = 2048  # the fullest; tags that fill more are noise, and the table of their distances must stay small


class ClusteringConfig(Config):
    """Lengths are shares of the gap that training asks for between two objects."""

    bin: float = Field(default=1 / 30, gt=0, le=1)  # 0.1 for a gap of 3
    smooth: float = Field(default=0.1, gt=0, le=1)  # standard deviation of the densities
    reach: float = Field(default=0.5, gt=0, le=1)  # tags as near as this to a peak are its object's
    compact: float = Field(default=0.25, gt=0, le=1)  # standard deviation within which tags speak for their object
    least: float = Field(default=0.002, ge=0, le=1)  # a peak with a smaller share of the foreground is no object
    most: int = Field(default=20, ge=1, le=255)  # objects of a clip (DAVIS: 20, YouTube-VIS: 10)
    leftover: Literal["nearest", "drop"] = "nearest"  # what becomes of foreground that no peak reaches


class Clusters(NamedTuple):
    """Objects by falling number of cells that their peak reached."""

    centres: Tensor  # [N, D]
    owners: Tensor  # int64 [P]: the object of each cell, -1 for none
    compactness: Tensor  # [N], 0..1: how near the cells' tags are to their centre, on average


def cluster(tags: Tensor, gap: float, config: ClusteringConfig) -> Clusters:
    """Group the tags [P, D] of foreground cells: the densest value claims all within reach, then the next.

    Values that are not finite belong to no object.
    """
    free = tags.isfinite().all(1)
    owners = torch.full((len(tags),), -1, dtype=torch.int64, device=tags.device)
    values, counts, bin_of = _histogram(tags, free, config.bin * gap)
    kernel = torch.exp(-0.5 * (torch.cdist(values, values) / (config.smooth * gap)).square())
    centres: list[Tensor] = []
    while len(centres) < config.most and bool(free.any()):
        density = kernel @ counts
        peak = values[density.argmax()]
        claimed = free & (_distance(tags, peak) <= config.reach * gap)
        if int(claimed.sum()) < max(config.least * len(tags), 1):
            break
        owners[claimed] = len(centres)
        centres.append(tags[claimed].mean(0))
        free = free & ~claimed
        counts = _count(bin_of, free, len(values))
    found = torch.stack(centres) if centres else tags.new_zeros(0, tags.shape[1])
    if config.leftover == "nearest" and len(found):
        owners[free] = _nearest(tags[free], found)
    return _by_size(Clusters(found, owners, _compactness(tags, owners, found, config.compact * gap)))


def _histogram(tags: Tensor, free: Tensor, width: float) -> tuple[Tensor, Tensor, Tensor]:
    """Values [B, D], counts [B] of the fullest bins, and the bin of each cell, int [P], B for those of no bin."""
    bins, inverse = torch.unique((tags[free] / width).round(), dim=0, return_inverse=True)
    counts = torch.bincount(inverse, minlength=len(bins))
    kept = counts.argsort(descending=True, stable=True)[:MOST_BINS]
    place = torch.full((len(bins),), len(kept), device=tags.device)
    place[kept] = torch.arange(len(kept), device=tags.device)
    bin_of = torch.full((len(tags),), len(kept), device=tags.device)
    bin_of[free] = place[inverse]
    return bins[kept] * width, counts[kept].to(tags.dtype), bin_of


def _count(bin_of: Tensor, free: Tensor, num_bins: int) -> Tensor:
    return torch.bincount(bin_of[free], minlength=num_bins + 1)[:num_bins].float()


def _distance(tags: Tensor, centre: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tags - centre, dim=-1)


def _nearest(tags: Tensor, centres: Tensor) -> Tensor:
    distances = torch.stack([_distance(tags, centre) for centre in centres], 1)  # a table of P x N, N small
    return distances.argmin(1) if len(tags) else distances.new_zeros(0, dtype=torch.int64)


def _compactness(tags: Tensor, owners: Tensor, centres: Tensor, width: float) -> Tensor:
    near = [torch.exp(-0.5 * (_distance(tags[owners == n], c) / width).square()).mean() for n, c in enumerate(centres)]
    return torch.stack(near) if near else tags.new_zeros(0)


def _by_size(found: Clusters) -> Clusters:
    """Numbered by falling size, so that the numbering does not hang on the order in which peaks were taken."""
    sizes = torch.bincount(found.owners[found.owners >= 0], minlength=len(found.centres))
    order = sizes.argsort(descending=True, stable=True)
    place = torch.cat([order.argsort(), order.new_tensor([-1])])
    return Clusters(found.centres[order], place[found.owners], found.compactness[order])
