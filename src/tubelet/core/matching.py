"""Bipartite matching: costs between two sets of objects, and the one-to-one assignment of least cost.

Training, test-time augmentation and linking use it. All costs are [N, M]; lower is better.

Letters: N predictions, M targets, P pixels or sampled points, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def assign(cost: Float[Tensor, "N M"]) -> tuple[Int[Tensor, "P"], Int[Tensor, "P"]]:
    """Return rows and columns of the one-to-one assignment of least total cost, P = min(N, M).

    Rows are ascending. Costs that are not finite count as 1e9 (-inf as -1e9), so that an overflow
    in mixed precision does not stop the training.

    Example:
        >>> from tubelet.core.matching import assign
        >>> assign(torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
        (tensor([0, 1]), tensor([1, 0]))
    """
    from scipy.optimize import linear_sum_assignment  # takes half a second, and not every model assigns

    table = np.nan_to_num(cost.detach().float().cpu().numpy(), nan=1e9, posinf=1e9, neginf=-1e9)
    rows, columns = linear_sum_assignment(table)
    return torch.as_tensor(rows, dtype=torch.int64), torch.as_tensor(columns, dtype=torch.int64)


def class_cost(probabilities: Float[Tensor, "N K"], labels: Int[Tensor, "M"]) -> Float[Tensor, "N M"]:
    """Return minus the probability of each target's class.

    Example:
        >>> from tubelet.core.matching import class_cost
        >>> class_cost(torch.tensor([[0.25, 0.75]]), torch.tensor([1, 0]))
        tensor([[-0.7500, -0.2500]])
    """
    return -probabilities[:, labels]


def bce_cost(logits: Float[Tensor, "N P"], targets: Float[Tensor, "M P"]) -> Float[Tensor, "N M"]:
    """Compute the mean binary cross-entropy over the points.

    Example:
        >>> from tubelet.core.matching import bce_cost
        >>> bce_cost(torch.tensor([[8.0, -8.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([[3.3541e-04, 8.0003e+00]])
    """
    positive = F.softplus(-logits) @ targets.T
    negative = F.softplus(logits) @ (1 - targets).T
    return (positive + negative) / logits.shape[1]


def dice_cost(logits: Float[Tensor, "N P"], targets: Float[Tensor, "M P"]) -> Float[Tensor, "N M"]:
    """Compute the Dice cost, 1 - (2 overlap + 1) / (sum of both + 1), over the points.

    Example:
        >>> from tubelet.core.matching import dice_cost
        >>> dice_cost(torch.tensor([[99.0, -99.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([[0.0000, 0.6667]])
    """
    probabilities = logits.sigmoid()
    overlap = probabilities @ targets.T
    total = probabilities.sum(1)[:, None] + targets.sum(1)[None]
    return 1 - (2 * overlap + 1) / (total + 1)


def mask_iou(first: Float[Tensor, "N P"], second: Float[Tensor, "M P"]) -> Float[Tensor, "N M"]:
    """Compute the soft IoU of flattened masks: sum(a b) / sum(a + b - a b); 0 if both are empty.

    Example:
        >>> from tubelet.core.matching import mask_iou
        >>> mask_iou(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        tensor([[0.5000, 0.5000]])
    """
    overlap = first @ second.T
    union = first.sum(1)[:, None] + second.sum(1)[None] - overlap
    return torch.where(union > 0, overlap / union.clamp(min=1e-12), torch.zeros_like(overlap))
