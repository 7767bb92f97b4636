"""Losses of masks on sampled points, and of classes in their own right.

Sources: Milletari et al. 2016 (Dice), Lin et al. 2017 (focal), Kirillov et al. PointRend 2020 (uncertain points).
Points are (x, y) in units of the map, 0 to 1. Letters: N maps, P points, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps [N, C, H, W] at points [N, P, 2] -> [N, C, P]; zero outside."""
    grid = 2 * points[:, :, None] - 1
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[..., 0]


def uncertain_points(maps: Tensor, points: int, oversample: float, important: float) -> Tensor:
    """Where to compare logit maps [N, H, W] with the truth: [N, points, 2].

    The share `important` are those of `oversample` times as many uniform candidates whose logits are nearest to zero;
    the rest is uniform. Draws from torch's global generator.
    """
    count, kept = len(maps), round(points * important)
    candidates = torch.rand(count, max(int(points * oversample), points), 2, device=maps.device)
    doubt = -sample(maps[:, None], candidates)[:, 0].abs()
    best = doubt.topk(kept, 1).indices[..., None].expand(-1, -1, 2)
    uniform = torch.rand(count, points - kept, 2, device=maps.device)
    return torch.cat([candidates.gather(1, best), uniform], 1)


def point_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over points: [..., P] -> [...]."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 overlap + 1) / (sum + 1) over points: [..., P] -> [...]; 0 where both are empty."""
    probabilities = logits.sigmoid()
    overlap = (probabilities * targets).sum(-1)
    return 1 - (2 * overlap + 1) / (probabilities.sum(-1) + targets.sum(-1) + 1)


def focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t of each sigmoid; shapes stay."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probabilities = logits.sigmoid()
    missed = targets * (1 - probabilities) + (1 - targets) * probabilities
    return (alpha * targets + (1 - alpha) * (1 - targets)) * missed**gamma * entropy
