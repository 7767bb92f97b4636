"""Who belongs to whom: cost terms between two sets of masks or classes, and the assignment of least cost.

Training, test-time augmentation and linking share it. All costs are [N, M], lower is better.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def assign(cost: Float[Tensor, "N M"]) -> tuple[Int[Tensor, "P"], Int[Tensor, "P"]]:
    """Rows and columns of the one-to-one assignment of least total cost, P = min(N, M), rows ascending.

    A cost that is not finite is taken as a very large one, so an overflow in mixed precision cannot stop a training.
    """
    table = np.nan_to_num(cost.detach().float().cpu().numpy(), nan=1e9, posinf=1e9, neginf=-1e9)
    rows, columns = linear_sum_assignment(table)
    return torch.as_tensor(rows, dtype=torch.int64), torch.as_tensor(columns, dtype=torch.int64)


def class_cost(probabilities: Float[Tensor, "N K"], labels: Int[Tensor, "M"]) -> Float[Tensor, "N M"]:
    """Minus the probability of each target's class."""
    return -probabilities[:, labels]


def bce_cost(logits: Float[Tensor, "N P"], targets: Float[Tensor, "M P"]) -> Float[Tensor, "N M"]:
    """Mean binary cross-entropy over P pixels or sampled points."""
    positive = F.softplus(-logits) @ targets.T
    negative = F.softplus(logits) @ (1 - targets).T
    return (positive + negative) / logits.shape[1]


def dice_cost(logits: Float[Tensor, "N P"], targets: Float[Tensor, "M P"]) -> Float[Tensor, "N M"]:
    """1 - (2 overlap + 1) / (sum + 1) over P pixels or sampled points."""
    probabilities = logits.sigmoid()
    overlap = probabilities @ targets.T
    return 1 - (2 * overlap + 1) / (probabilities.sum(1)[:, None] + targets.sum(1)[None] + 1)


def mask_iou(first: Float[Tensor, "N P"], second: Float[Tensor, "M P"]) -> Float[Tensor, "N M"]:
    """Soft overlap of flattened masks: sum of products over sum of both less the products; 0 where both are empty."""
    overlap = first @ second.T
    union = first.sum(1)[:, None] + second.sum(1)[None] - overlap
    return torch.where(union > 0, overlap / union.clamp(min=1e-12), torch.zeros_like(overlap))
