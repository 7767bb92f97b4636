"""Weights that torchvision publishes, by names such as `torchvision/resnet50`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tubelet.core.errors import WeightsError, nearest
from tubelet.models.tags.encoder import from_torchvision_video
from tubelet.models.weights.key_maps import from_torchvision


def fetch_torchvision(source: str) -> dict[str, Any]:
    """Download weights of torchvision; those of an image classifier keep torchvision's names."""
    from torchvision.models import ResNet50_Weights, ResNet101_Weights
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
    from torchvision.models.video import R2Plus1D_18_Weights

    masks = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
    kinetics = R2Plus1D_18_Weights.KINETICS400_V1
    known = {
        "torchvision/maskrcnn_resnet50_fpn": masks,
        "torchvision/maskrcnn_resnet50_fpn_v1": masks,
        "torchvision/r2plus1d_18": kinetics,
        "torchvision/resnet50": ResNet50_Weights.IMAGENET1K_V1,
        "torchvision/resnet101": ResNet101_Weights.IMAGENET1K_V1,
    }
    if source not in known:
        raise WeightsError(f"unknown weights {source!r}; {nearest(source, known)}")

    weights = known[source]
    try:
        tensors = dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except OSError as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
        raise WeightsError(
            f"{source} cannot be fetched ({error}); without a network put {cache.name} into {cache.parent}"
        ) from None

    if weights is kinetics:
        return from_torchvision_video(tensors)
    if weights is not masks:
        return tensors
    return from_torchvision(tensors, norm_eps=0.0)  # trained with frozen norms, whose eps is 0
