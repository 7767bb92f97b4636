"""Losses of masks at sampled points, and of classes as independent sigmoids.

Sources: Milletari et al. 2016 (Dice), Lin et al. 2017 (focal), Kirillov et al. PointRend 2020 (uncertain points).
Points are (x, y) in units of the map, 0 to 1. Letters: N maps, P points, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps [N, C, H, W] bilinearly at points [N, P, 2] -> [N, C, P]; 0 outside the map.

    Example:
        >>> from tubelet.models.losses import sample
        >>> maps = torch.tensor([[[[0.0, 4.0]]]])
        >>> sample(maps, torch.tensor([[[0.25, 0.5], [0.5, 0.5]]]))
        tensor([[[0., 2.]]])
    """
    grid = 2 * points[:, :, None] - 1
    values = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return values[..., 0]


def uncertain_points(maps: Tensor, points: int, oversample: float, important: float) -> Tensor:
    """Choose the points at which logit maps are compared with the truth, most of them uncertain.

    Draws from torch's global generator.

    Args:
        maps: Logits, [N, H, W].
        points: Points of each map.
        oversample: Uniform candidates drawn for each point.
        important: Share of the points that are the candidates with logits nearest to zero; the
            other points are uniform.

    Returns:
        Points [N, P, 2].

    Example:
        >>> from tubelet.models.losses import uncertain_points
        >>> maps = torch.zeros(2, 4, 6)
        >>> uncertain_points(maps, points=5, oversample=3, important=0.75).shape
        torch.Size([2, 5, 2])
    """
    count = len(maps)
    num_uncertain = round(points * important)
    candidates = torch.rand(count, max(int(points * oversample), points), 2, device=maps.device)

    uncertainty = -sample(maps[:, None], candidates)[:, 0].abs()
    chosen = uncertainty.topk(num_uncertain, 1).indices
    uncertain = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))

    uniform = torch.rand(count, points - num_uncertain, 2, device=maps.device)
    return torch.cat([uncertain, uniform], 1)


def point_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the binary cross-entropy, averaged over points: [..., P] -> [...].

    Example:
        >>> from tubelet.models.losses import point_bce
        >>> point_bce(torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 1.0]]))
        tensor([0.6931])
    """
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the Dice loss over points, 1 - (2 overlap + 1) / (sum + 1): [..., P] -> [...].

    It is 0 where both masks are empty.

    Example:
        >>> from tubelet.models.losses import dice
        >>> dice(torch.tensor([[-99.0, 99.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([0.])
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * targets).sum(-1)
    return 1 - (2 * overlap + 1) / (probabilities.sum(-1) + targets.sum(-1) + 1)


def focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Compute the focal loss of each sigmoid, -alpha_t (1 - p_t)^gamma log p_t; shapes stay.

    Example:
        >>> from tubelet.models.losses import focal
        >>> focal(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]))
        tensor([0.0433, 0.0005])
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probabilities = logits.sigmoid()
    missed = targets * (1 - probabilities) + (1 - targets) * probabilities
    return (alpha * targets + (1 - alpha) * (1 - targets)) * missed**gamma * cross_entropy
