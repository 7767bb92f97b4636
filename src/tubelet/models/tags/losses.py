"""The tagging loss: tags of one object are to be alike, tags of two objects at least a gap apart.

Source: Tag-based attention guided bottom-up approach for video instance segmentation, III-D, Eq. 1-7.

    Eq. 1   spectra = 1/N  sum_n  sum_{m <= M'} (h_n - h'_nm)^2              each sampled pixel to its object's mean
    Eq. 2   specter = sum_{n < n'} max(0, G - |h_n - h_n'|)                  means of two objects apart
    Eq. 3-4 tempra  = 1/N  sum_n  sum_t (h_n - h_nt)^2                       the mean in each frame to the whole's
    Eq. 5   temper  = sum_{n < n'}  sum_t max(0, G - |h_nt - h_n't|)         means of two objects apart in each frame
    Eq. 6   tagging = spectra + specter + tempra + temper
    Eq. 7   total   = tagging + cross-entropy of the semantic branch

    h'_nm -> the tags, sampled    M' -> samples    G -> gap    N, T -> objects and frames of the clip
    h_n   -> means [N, D]         h_nt -> frame_means [N, T, D], and there [N, T]: in which frames the object is

Where an object is absent its mean does not exist: the term is left out, and a pair counts where both are there.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from tubelet.core.config import Config
from tubelet.core.types import Losses
from tubelet.models.tags.inputs import IGNORED, TagTruth

TERMS = ("spectra", "specter", "tempra", "temper")
PAPER_FRAMES = 32  # the sums over frames in the paper have so many terms


class TagLossConfig(Config):
    """Which terms there are, and how their sums are scaled."""

    spectra: bool = True
    specter: bool = True
    tempra: bool = True
    temper: bool = True
    gap: float = Field(default=3.0, gt=0)  # G
    samples: int = Field(default=256, ge=1)  # M', of each object, drawn with repetition
    # "paper": sums as printed. "balanced": those over sampled pixels scaled as if there were as many as frames in the
    # paper, so that pull and push weigh alike. "mean": every term is a mean, so that clips of any length weigh alike
    reduction: Literal["paper", "balanced", "mean"] = "balanced"
    weight: float = Field(default=1.0, gt=0)  # of the tagging loss beside cross-entropy


class Means(NamedTuple):
    """Mean tags of the objects that a clip shows."""

    means: Tensor  # [N, D], over all frames
    frame_means: Tensor  # [N, T, D], in each frame; means nothing where absent
    there: Tensor  # bool [N, T]


def tagging_losses(tags: Tensor, owners: Tensor, config: TagLossConfig) -> Losses:
    """Eq. 1-5 of one clip: tags [D, T, h, w], owners int [T, h, w] (a number per object, negative elsewhere).

    Only the terms that are asked for; each is a scalar >= 0, and exactly 0 for objects with constant tags a gap apart.
    """
    cells = owners >= 0
    numbers, rows = torch.unique(owners[cells], return_inverse=True)
    flat = tags.movedim(0, -1)[cells]  # [P, D]
    frame = cells.nonzero()[:, 0]
    held = object_means(flat, rows, frame, len(numbers), len(owners))
    terms = {
        "spectra": lambda: spectra(flat, rows, held.means, config),
        "specter": lambda: specter(held.means, config),
        "tempra": lambda: tempra(held, config),
        "temper": lambda: temper(held, config),
    }
    connected = tags.sum() * 0  # a clip without objects still has a gradient, of zero
    return {name: connected + terms[name]() * config.weight for name in TERMS if getattr(config, name)}


def object_means(tags: Tensor, rows: Tensor, frames: Tensor, num_objects: int, num_frames: int) -> Means:
    """Mean tags of pixels [P, D] by their object and frame, int [P] each.

    Taken from one pixel of each object on, so that the mean of equal tags is exactly their value.
    """
    first = torch.full((num_objects,), len(rows), device=rows.device)
    first = first.scatter_reduce(0, rows, torch.arange(len(rows), device=rows.device), "amin")
    origin = tags.detach()[first]  # [N, D]
    cells, shape = rows * num_frames + frames, (num_objects, num_frames, tags.shape[1])
    sums = tags.new_zeros(num_objects * num_frames, tags.shape[1]).index_add(0, cells, tags - origin[rows]).view(shape)
    counts = torch.bincount(cells, minlength=num_objects * num_frames).view(num_objects, num_frames, 1)
    means, frame_means = sums.sum(1) / counts.sum(1), sums / counts.clamp(min=1)
    return Means(origin + means, origin[:, None] + frame_means, counts[..., 0] > 0)


def spectra(tags: Tensor, rows: Tensor, means: Tensor, config: TagLossConfig) -> Tensor:
    """Eq. 1: pixels [P, D] of objects `rows` [P] to the objects' means [N, D]."""
    if not len(means):
        return tags.new_zeros(())
    drawn = _draw(rows, len(means), config.samples)  # [N, M']
    squares = (means[:, None] - tags[drawn]).square().sum(-1)
    if config.reduction == "mean":
        return squares.mean()
    scale = PAPER_FRAMES / config.samples if config.reduction == "balanced" else 1.0
    return squares.sum() / len(means) * scale


def specter(means: Tensor, config: TagLossConfig) -> Tensor:
    """Eq. 2: means [N, D] of the whole clip apart; 0 for less than two objects."""
    first, second = _pairs(len(means), means.device)
    missing = _missing(means[first] - means[second], config.gap)
    return _mean(missing) if config.reduction == "mean" else missing.sum()


def tempra(held: Means, config: TagLossConfig) -> Tensor:
    """Eq. 3-4: the mean of each frame to the mean of the whole clip."""
    squares = (held.means[:, None] - held.frame_means).square().sum(-1)[held.there]
    return _mean(squares) if config.reduction == "mean" else squares.sum() / max(len(held.means), 1)


def temper(held: Means, config: TagLossConfig) -> Tensor:
    """Eq. 5: means of one frame apart, for pairs that are both in it."""
    first, second = _pairs(len(held.means), held.means.device)
    both = held.there[first] & held.there[second]  # [pairs, T]
    missing = _missing((held.frame_means[first] - held.frame_means[second])[both], config.gap)
    return _mean(missing) if config.reduction == "mean" else missing.sum()


def cross_entropy(logits: Tensor, truth: TagTruth, *, agnostic: bool) -> Tensor:
    """Eq. 7's semantic part, a plain mean over the cells that are not ignored: logits [K + 1, T, h, w], background 0.

    `agnostic`: every object is of the one class there is. 0 where all cells are ignored.
    """
    classes = torch.zeros_like(truth.labels) if agnostic else truth.labels
    of_row = torch.cat([classes + 1, classes.new_tensor([IGNORED, 0])])  # the last two by their negative numbers
    goal = of_row[truth.owners]
    if bool((goal == IGNORED).all()):
        return logits.sum() * 0
    return F.cross_entropy(logits[None].float(), goal[None], ignore_index=IGNORED)


def _missing(differences: Tensor, gap: float) -> Tensor:
    """How far below the gap the lengths of differences [..., D] are; no gradient where two are equal."""
    return (gap - torch.linalg.vector_norm(differences, dim=-1)).clamp(min=0)


def _draw(rows: Tensor, num_objects: int, samples: int) -> Tensor:
    """`samples` pixels of each object at random, with repetition: positions in `rows`, int64 [N, samples]."""
    order = rows.argsort(stable=True)
    counts = torch.bincount(rows, minlength=num_objects)
    chance = torch.rand(num_objects, samples, device=rows.device)
    place = (chance * counts[:, None]).long().minimum(counts[:, None] - 1)
    return order[counts.cumsum(0)[:, None] - counts[:, None] + place]


def _pairs(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    first, second = torch.triu_indices(count, count, 1, device=device).unbind(0)
    return first, second


def _mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum()
