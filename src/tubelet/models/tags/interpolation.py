"""Masks as signed distances, so that frames between two read frames are interpolated by shape.

A model that reads a few frames of a long video leaves the others to be interpolated. A linear blend
of masks that hardly overlap cuts the object away in the middle; a blend of distances to the outline
moves the outline instead.

    d(p) = distance from p to the nearest cell outside the mask (inside), or minus that to the nearest
           cell inside it (outside), less half a cell;   probability = sigmoid(d / softness)

so the mean of the logits of two masks is the mean of their signed distances. A choice of ours: the
paper says "interpolation".
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SOFTNESS = 4.0  # cells; logits of 1e-6 and beyond are cut, which is at 55 cells


def as_distances(masks: Tensor, softness: float = SOFTNESS) -> Tensor:
    """Soft masks [N, T, h, w] -> probabilities of the same shape whose logits are signed distances.

    Above 1/2 exactly where the mask is. An empty mask is 0 everywhere.

    Example:
        >>> from tubelet.models.tags.interpolation import as_distances
        >>> mask = torch.tensor([0.0, 0.0, 0.9, 0.8, 0.0, 0.0, 0.0]).view(1, 1, 1, 7)
        >>> as_distances(mask, softness=1.0).logit().flatten()
        tensor([-1.5000, -0.5000,  0.5000,  0.5000, -0.5000, -1.5000, -2.5000])
    """
    inside = (masks > 0.5).cpu().numpy()
    distances = np.full(inside.shape, -np.inf, np.float32)
    for n, t in np.ndindex(*inside.shape[:2]):
        if inside[n, t].any():
            distances[n, t] = _signed(inside[n, t])
    logits = torch.from_numpy(distances).to(masks.device) / softness
    return logits.sigmoid()


def _signed(inside: np.ndarray) -> np.ndarray:
    """Signed distance of each cell to the outline of a mask that is not empty, [h, w]."""
    from scipy.ndimage import distance_transform_edt  # slow to import, and only this model needs it

    if inside.all():
        return np.full(inside.shape, float(max(inside.shape)), np.float32)
    within: np.ndarray = distance_transform_edt(inside)
    outside: np.ndarray = distance_transform_edt(~inside)
    return np.where(inside, within - 0.5, 0.5 - outside).astype(np.float32)
