"""Group tags: foreground cells whose tags lie around the same value are one object, in all frames.

The paper does not say how tags are grouped; this is our way (docs/papers/tags.md). Densities are
computed at the values that occur, so tags of any number of dimensions are grouped alike, and their
range does not matter. Letters: P cells, D numbers per tag, N objects, B bins.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from tubelet.core.config import Config

MOST_BINS = 2048  # the fullest; tags that fill more are noise, and the table of their distances must stay small


class ClusteringConfig(Config):
    """How tags are grouped. Lengths are shares of the gap that training asks for between two objects.

    Example:
        >>> from tubelet.models.tags.clustering import ClusteringConfig
        >>> ClusteringConfig(most=10).reach
        0.5
    """

    bin: float = Field(default=1 / 30, gt=0, le=1)  # 0.1 for a gap of 3
    smooth: float = Field(default=0.1, gt=0, le=1)  # standard deviation of the densities
    reach: float = Field(default=0.5, gt=0, le=1)  # a peak claims all tags within this distance
    # standard deviation of the weight of a tag by its distance to the centre, in an object's compactness
    compact: float = Field(default=0.25, gt=0, le=1)
    least: float = Field(default=0.002, ge=0, le=1)  # a peak with a smaller share of the foreground is no object
    most: int = Field(default=20, ge=1, le=255)  # objects of a clip (DAVIS: 20, YouTube-VIS: 10)
    leftover: Literal["nearest", "drop"] = "nearest"  # foreground that no peak claims: the nearest object's, or none's


class Clusters(NamedTuple):
    """Objects by falling number of cells.

    Example:
        >>> from tubelet.models.tags.clustering import ClusteringConfig, cluster
        >>> clusters = cluster(torch.tensor([[0.0], [0.0], [3.0]]), gap=3.0, config=ClusteringConfig())
        >>> clusters.owners, clusters.centres.flatten()
        (tensor([0, 0, 1]), tensor([0., 3.]))
    """

    centres: Tensor  # [N, D]
    owners: Tensor  # int64 [P]: the object of each cell, -1 for none
    compactness: Tensor  # [N], 0..1: how near the cells' tags are to their centre, on average


def cluster(tags: Tensor, gap: float, config: ClusteringConfig) -> Clusters:
    """Group the tags [P, D] of foreground cells: the densest value claims all within reach, then the next.

    Tags that are not finite belong to no object.

    Example:
        >>> from tubelet.models.tags.clustering import ClusteringConfig, cluster
        >>> tags = torch.tensor([0.1, 0.0, 3.1, torch.nan])[:, None]
        >>> cluster(tags, gap=3.0, config=ClusteringConfig()).owners
        tensor([ 0,  0,  1, -1])
    """
    free = tags.isfinite().all(1)
    owners = torch.full((len(tags),), -1, dtype=torch.int64, device=tags.device)
    values, counts, bin_of = _histogram(tags, free, config.bin * gap)
    kernel = torch.exp(-0.5 * (torch.cdist(values, values) / (config.smooth * gap)).square())

    peaks: list[Tensor] = []
    while len(peaks) < config.most and bool(free.any()):
        density = kernel @ counts
        peak = values[density.argmax()]
        claimed = free & (_distance(tags, peak) <= config.reach * gap)
        if int(claimed.sum()) < max(config.least * len(tags), 1):
            break
        owners[claimed] = len(peaks)
        peaks.append(tags[claimed].mean(0))
        free = free & ~claimed
        counts = _count(bin_of, free, len(values))

    centres = torch.stack(peaks) if peaks else tags.new_zeros(0, tags.shape[1])
    if config.leftover == "nearest" and len(centres):
        owners[free] = _nearest(tags[free], centres)
    return _by_size(Clusters(centres, owners, _compactness(tags, owners, centres, config.compact * gap)))


def _histogram(tags: Tensor, free: Tensor, width: float) -> tuple[Tensor, Tensor, Tensor]:
    """Values [B, D] and counts [B] of the fullest bins; the bin of each cell, int [P], B for none of these."""
    bins, inverse = torch.unique((tags[free] / width).round(), dim=0, return_inverse=True)
    counts = torch.bincount(inverse, minlength=len(bins))
    fullest = counts.argsort(descending=True, stable=True)[:MOST_BINS]

    position = torch.full((len(bins),), len(fullest), device=tags.device)
    position[fullest] = torch.arange(len(fullest), device=tags.device)
    bin_of = torch.full((len(tags),), len(fullest), device=tags.device)
    bin_of[free] = position[inverse]
    return bins[fullest] * width, counts[fullest].to(tags.dtype), bin_of


def _count(bin_of: Tensor, free: Tensor, num_bins: int) -> Tensor:
    return torch.bincount(bin_of[free], minlength=num_bins + 1)[:num_bins].float()


def _distance(tags: Tensor, centre: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tags - centre, dim=-1)


def _nearest(tags: Tensor, centres: Tensor) -> Tensor:
    distances = torch.stack([_distance(tags, centre) for centre in centres], 1)  # [P, N], N is small
    return distances.argmin(1) if len(tags) else distances.new_zeros(0, dtype=torch.int64)


def _compactness(tags: Tensor, owners: Tensor, centres: Tensor, width: float) -> Tensor:
    if not len(centres):
        return tags.new_zeros(0)
    compactness = []
    for n, centre in enumerate(centres):
        distances = _distance(tags[owners == n], centre)
        compactness.append(torch.exp(-0.5 * (distances / width).square()).mean())
    return torch.stack(compactness)


def _by_size(clusters: Clusters) -> Clusters:
    """Number objects by falling size, so numbers do not depend on the order in which peaks were taken."""
    centres, owners, compactness = clusters
    sizes = torch.bincount(owners[owners >= 0], minlength=len(centres))
    order = sizes.argsort(descending=True, stable=True)
    position = torch.cat([order.argsort(), order.new_tensor([-1])])  # of -1, the last one: -1
    return Clusters(centres[order], position[owners], compactness[order])
