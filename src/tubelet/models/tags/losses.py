"""The tagging loss: tags of one object are alike, tags of two objects are at least a gap apart.

Source: Tag-based attention guided bottom-up approach for video instance segmentation, III-D,
Eq. 1-7.

    Eq. 1   spectra = 1/N  sum_n  sum_{m <= M'} (h_n - h'_nm)^2              sampled pixels to their object's mean
    Eq. 2   specter = sum_{n < n'} max(0, G - |h_n - h_n'|)                  means of two objects apart
    Eq. 3-4 tempra  = 1/N  sum_n  sum_t (h_n - h_nt)^2                       the mean in each frame to the clip's
    Eq. 5   temper  = sum_{n < n'}  sum_t max(0, G - |h_nt - h_n't|)         means of two objects apart in each frame
    Eq. 6   tagging = spectra + specter + tempra + temper
    Eq. 7   total   = tagging + cross-entropy of the semantic branch

    h'_nm -> the tags, sampled    M' -> samples    G -> gap    N, T -> objects and frames of the clip
    h_n   -> means [N, D]         h_nt -> frame_means [N, T, D], valid where present [N, T]

Where an object is absent it has no mean: the term is left out, and a pair counts where both are
present.
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
    """Terms of the tagging loss, and how their sums are scaled.

    Example:
        >>> from tubelet.models.tags.losses import TagLossConfig
        >>> TagLossConfig(spectra=False).gap
        3.0
    """

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
    """Mean tags of the objects of a clip.

    Example:
        >>> from tubelet.models.tags.losses import object_means
        >>> rows, frames = torch.tensor([0, 0]), torch.tensor([0, 1])
        >>> object_means(torch.tensor([[1.0], [2.0]]), rows, frames, 1, 2).means
        tensor([[1.5000]])
    """

    means: Tensor  # [N, D], over all frames
    frame_means: Tensor  # [N, T, D], in each frame; undefined where the object is absent
    present: Tensor  # bool [N, T]


def tagging_losses(tags: Tensor, owners: Tensor, config: TagLossConfig) -> Losses:
    """Eq. 1-5 of one clip: tags [D, T, h, w], owners int [T, h, w] (a number per object, negative elsewhere).

    Only the terms that are on; each is a scalar >= 0, and exactly 0 for objects with constant tags a
    gap apart.

    Example:
        >>> from tubelet.models.tags.losses import TagLossConfig, tagging_losses
        >>> owners = torch.tensor([[[0, 0, 1, -1]]])
        >>> losses = tagging_losses(2.0 * owners[None], owners, TagLossConfig())
        >>> float(losses["specter"]), float(losses["spectra"])  # two objects, 2 apart instead of 3
        (1.0, 0.0)
    """
    cells = owners >= 0
    numbers, rows = torch.unique(owners[cells], return_inverse=True)
    flat = tags.movedim(0, -1)[cells]  # [P, D]
    frame = cells.nonzero()[:, 0]
    objects = object_means(flat, rows, frame, len(numbers), len(owners))

    terms = {
        "spectra": lambda: spectra(flat, rows, objects.means, config),
        "specter": lambda: specter(objects.means, config),
        "tempra": lambda: tempra(objects, config),
        "temper": lambda: temper(objects, config),
    }
    connected = tags.sum() * 0  # a clip without objects still has a gradient, of zero
    return {name: connected + terms[name]() * config.weight for name in TERMS if getattr(config, name)}


def object_means(tags: Tensor, rows: Tensor, frames: Tensor, num_objects: int, num_frames: int) -> Means:
    """Mean tags of pixels [P, D] by their object and frame, int [P] each.

    Means are of differences to one pixel of each object, so the mean of equal tags is exactly their
    value.

    Example:
        >>> from tubelet.models.tags.losses import object_means
        >>> rows, frames = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
        >>> objects = object_means(torch.tensor([[1.0], [3.0], [8.0]]), rows, frames, 2, 2)
        >>> objects.means.flatten(), objects.present.tolist()
        (tensor([2., 8.]), [[True, True], [False, True]])
    """
    first = torch.full((num_objects,), len(rows), device=rows.device)
    first = first.scatter_reduce(0, rows, torch.arange(len(rows), device=rows.device), "amin")
    origin = tags.detach()[first]  # [N, D]

    cells = rows * num_frames + frames
    sums = tags.new_zeros(num_objects * num_frames, tags.shape[1]).index_add(0, cells, tags - origin[rows])
    sums = sums.view(num_objects, num_frames, tags.shape[1])
    counts = torch.bincount(cells, minlength=num_objects * num_frames).view(num_objects, num_frames, 1)

    means = sums.sum(1) / counts.sum(1)
    frame_means = sums / counts.clamp(min=1)
    return Means(origin + means, origin[:, None] + frame_means, counts[..., 0] > 0)


def spectra(tags: Tensor, rows: Tensor, means: Tensor, config: TagLossConfig) -> Tensor:
    """Eq. 1: pixels [P, D] of objects `rows` [P] to the objects' means [N, D].

    Example:
        >>> from tubelet.models.tags.losses import TagLossConfig, spectra
        >>> tags, rows = torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0])
        >>> float(spectra(tags, rows, torch.tensor([[2.0]]), TagLossConfig(reduction="mean")))
        1.0
    """
    if not len(means):
        return tags.new_zeros(())
    drawn = _draw(rows, len(means), config.samples)  # [N, M']
    squares = (means[:, None] - tags[drawn]).square().sum(-1)
    if config.reduction == "mean":
        return squares.mean()
    scale = PAPER_FRAMES / config.samples if config.reduction == "balanced" else 1.0
    return squares.sum() / len(means) * scale


def specter(means: Tensor, config: TagLossConfig) -> Tensor:
    """Eq. 2: means [N, D] of the whole clip apart; 0 for less than two objects.

    Example:
        >>> from tubelet.models.tags.losses import TagLossConfig, specter
        >>> float(specter(torch.tensor([[0.0], [1.0]]), TagLossConfig()))
        2.0
    """
    first, second = _pairs(len(means), means.device)
    missing = _missing(means[first] - means[second], config.gap)
    return _mean(missing) if config.reduction == "mean" else missing.sum()


def tempra(objects: Means, config: TagLossConfig) -> Tensor:
    """Eq. 3-4: the mean of each frame to the mean of the whole clip.

    Example:
        >>> from tubelet.models.tags.losses import Means, TagLossConfig, tempra
        >>> frame_means = torch.tensor([[[1.0], [3.0]]])
        >>> objects = Means(torch.tensor([[2.0]]), frame_means, torch.ones(1, 2, dtype=torch.bool))
        >>> float(tempra(objects, TagLossConfig()))
        2.0
    """
    differences = objects.means[:, None] - objects.frame_means
    squares = differences.square().sum(-1)[objects.present]
    return _mean(squares) if config.reduction == "mean" else squares.sum() / max(len(objects.means), 1)


def temper(objects: Means, config: TagLossConfig) -> Tensor:
    """Eq. 5: means of one frame apart, for pairs that are both in it.

    Example:
        >>> from tubelet.models.tags.losses import Means, TagLossConfig, temper
        >>> frame_means = torch.tensor([[[0.0], [0.0]], [[1.0], [9.0]]])
        >>> objects = Means(frame_means.mean(1), frame_means, torch.ones(2, 2, dtype=torch.bool))
        >>> float(temper(objects, TagLossConfig()))
        2.0
    """
    first, second = _pairs(len(objects.means), objects.means.device)
    both = objects.present[first] & objects.present[second]  # [pairs, T]
    differences = objects.frame_means[first] - objects.frame_means[second]
    missing = _missing(differences[both], config.gap)
    return _mean(missing) if config.reduction == "mean" else missing.sum()


def cross_entropy(logits: Tensor, truth: TagTruth, *, agnostic: bool) -> Tensor:
    """Semantic part of Eq. 7: logits [K + 1, T, h, w], background 0; a plain mean over cells that are not ignored.

    `agnostic`: every object is of the only class. 0 where all cells are ignored.

    Example:
        >>> from tubelet.models.tags.inputs import TagTruth
        >>> from tubelet.models.tags.losses import cross_entropy
        >>> truth = TagTruth(torch.tensor([[[0, -1]]]), torch.tensor([1]))
        >>> float(cross_entropy(torch.zeros(3, 1, 1, 2), truth, agnostic=False))  # log 3
        1.0986...
    """
    classes = torch.zeros_like(truth.labels) if agnostic else truth.labels
    # NOTHING and IGNORED are negative numbers, so they read the end
    target_of_owner = torch.cat([classes + 1, classes.new_tensor([IGNORED, 0])])
    target = target_of_owner[truth.owners]
    if bool((target == IGNORED).all()):
        return logits.sum() * 0
    return F.cross_entropy(logits[None].float(), target[None], ignore_index=IGNORED)


def _missing(differences: Tensor, gap: float) -> Tensor:
    """How far below the gap the lengths of differences [..., D] are; no gradient where two are equal."""
    return (gap - torch.linalg.vector_norm(differences, dim=-1)).clamp(min=0)


def _draw(rows: Tensor, num_objects: int, samples: int) -> Tensor:
    """`samples` pixels of each object at random, with repetition: positions in `rows`, int64 [N, samples]."""
    order = rows.argsort(stable=True)
    counts = torch.bincount(rows, minlength=num_objects)
    chance = torch.rand(num_objects, samples, device=rows.device)
    position = (chance * counts[:, None]).long().minimum(counts[:, None] - 1)
    first = counts.cumsum(0)[:, None] - counts[:, None]
    return order[first + position]


def _pairs(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    first, second = torch.triu_indices(count, count, 1, device=device).unbind(0)
    return first, second


def _mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum()
