"""Pretrained weights that a training starts from: every tensor that fits, renamed, resized and sorted by class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.core.errors import WeightsError
from tubelet.models.hub_segmenter.model import HubSegmenterConfig
from tubelet.models.tags.encoder import from_torchvision_video
from tubelet.models.videomt.model import VidEoMT
from tubelet.models.weights.contents import classes_of, read_tensors
from tubelet.models.weights.families import AnyModel
from tubelet.models.weights.finding import find
from tubelet.models.weights.fitting import Unfilled
from tubelet.models.weights.key_maps import (
    from_coco_ssdlite,
    from_detectron2,
    from_nanodet_plus,
    from_torchvision,
    from_transformers,
    is_detectron2,
    is_transformers,
)
from tubelet.models.weights.torchvision_files import fetch_torchvision
from tubelet.models.weights.videomt import from_eomt, is_eomt, resized_vit

BACKBONES = (  # prefixes of a backbone's tensors
    "detector.backbone.body.",
    "backbone.body.",
    "network.encoder.backbone.body.",
    "network.backbone.body.patch_embed.trunk.body.",  # in the small VidEoMT, whose patches are of a trunk's maps
    "network.backbone.body.",
)
ENCODER = "network.encoder."  # prefix of the trunk of a tag model
SSDLITE = "detector.body."  # prefix of the trunk of an SSDLite detector


def start_from(model: nn.Module, source: str, *, parts: Literal["all", "backbone"] = "all") -> list[str]:
    """Initialise a model for training with all pretrained tensors that fit.

    Args:
        model: Changed in place.
        source: What `load` takes, or a safetensors file of an SSDLite or NanoDet-Plus detector of COCO, a
            torchvision Mask R-CNN, a published Mask2Former, VidEoMT or EoMT, torchvision's R(2+1)D or a plain
            backbone, recognised by their tensors' names. `torchvision/maskrcnn_resnet50_fpn`,
            `torchvision/r2plus1d_18`, `torchvision/resnet50` and `torchvision/resnet101` are downloaded.
        parts: `backbone` takes the trunk alone, from any model with the same one.

    A class that the source knows by the same name keeps what its class head has learned of it, whatever the others are
    and in whatever order they come.

    Returns:
        The names of the tensors that keep their random values.

    Raises:
        WeightsError: if no tensor fits.
    """
    target = model.state_dict()
    if source.startswith("torchvision/"):
        tensors = _renamed(fetch_torchvision(source), model)
    else:
        tensors = _renamed(read_tensors(find(source)), model)

    tensors = _resized_positions(_trunks(tensors) | tensors, target)
    if isinstance(model, AnyModel) and not source.startswith("torchvision/"):
        tensors = _for_classes(tensors, target, model, classes_of(find(source)))
    if isinstance(model, VidEoMT):
        tensors = resized_vit(tensors, model.config.encoder)
    if parts == "backbone":
        tensors = _backbone_of(tensors, target)
    common = [name for name in tensors if name in target]
    fitting = {name: tensors[name] for name in common if target[name].shape == tensors[name].shape}
    if not fitting:
        raise WeightsError(f"{source}: none of its {len(tensors)} tensors fits this model")

    model.load_state_dict(fitting, strict=False)
    missing = target.keys() - fitting.keys()
    return sorted(name for name in missing if not name.endswith("num_batches_tracked"))


def is_backbone(name: str) -> bool:
    """Whether a tensor of one of our models belongs to its trunk.

    Example:
        >>> from tubelet.models.weights.pretrained import is_backbone
        >>> is_backbone("detector.backbone.body.conv1.weight"), is_backbone("match.layers.0.weight")
        (True, False)
    """
    return name.startswith((*BACKBONES, ENCODER))


def _backbone_of(tensors: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the tensors of the trunk, under the names that this model has for it."""
    prefixes = (*BACKBONES, ENCODER)
    here = [prefix for prefix in prefixes if any(key.startswith(prefix) for key in target)]
    return {
        new_prefix + key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        for prefix in prefixes
        for new_prefix in here
        if key.startswith(prefix)
    }


def _renamed(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    if "extra.0.pw.weight" in tensors:
        return from_coco_ssdlite(tensors)
    if "extra_in.0.weight" in tensors and "heads.0.2.weight" in tensors:
        return from_nanodet_plus(tensors)
    if "roi_heads.box_head.fc6.weight" in tensors:
        return from_torchvision(tensors)
    if "stem.0.weight" in tensors and "layer1.0.conv1.0.0.weight" in tensors:
        return from_torchvision_video(tensors)
    if is_transformers(tensors):
        return from_transformers(tensors)
    if is_detectron2(tensors):
        return from_detectron2(tensors)
    if is_eomt(tensors):
        return from_eomt(tensors)

    target = model.state_dict().keys()
    for prefix in BACKBONES:
        # timm names Swin's stages `layers.0` in a whole network, and `layers_0` in a backbone
        backbone = {prefix + re.sub(r"^layers\.(\d)\.", r"layers_\1.", k): t for k, t in tensors.items()}
        if backbone.keys() & target:
            return backbone
    return tensors


def _resized_positions(tensors: dict[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Resize a mask head's learned positions (rcnn/heads/crops.py) if the model's crops have another size."""
    learned = tensors.get("mask.position")
    position = target.get("mask.position")
    if learned is None or position is None:
        return tensors
    if learned.ndim != 4 or learned.shape[:2] != position.shape[:2]:
        return tensors
    resized = F.interpolate(learned, position.shape[-2:], mode="bilinear", align_corners=False)
    return tensors | {"mask.position": resized}


def _for_classes(
    tensors: Mapping[str, Tensor], target: Mapping[str, Tensor], model: AnyModel, known: Sequence[str]
) -> dict[str, Tensor]:
    """The tensors as a model of other classes takes them, `known` being the file's; none are known of some files.

    A head of one row a class gets the file's rows of the classes that both know. What else depends on the classes, such
    as a head with a background, starts anew, also where the two have as many.
    """
    classes = model.classes
    if not known or list(known) == list(classes):
        return dict(tensors)

    rows = {row: known.index(name) for row, name in enumerate(classes) if name in known}
    taken = dict(tensors)
    for key in _named_by_classes(model, target) & tensors.keys():
        tensor, head = tensors[key], target[key]
        has_rows = (len(tensor), len(head)) == (len(known), len(classes)) and tensor.shape[1:] == head.shape[1:]
        if has_rows and rows:
            taken[key] = head.clone()
            taken[key][list(rows)] = tensor[list(rows.values())]
        else:
            del taken[key]
    return taken


def _named_by_classes(model: AnyModel, target: Mapping[str, Tensor]) -> set[str]:
    """The tensors that would have another shape if the model had one class more."""
    config = model.config
    assert not isinstance(config, HubSegmenterConfig), "such a model is never trained"
    with torch.device("meta"), Unfilled():
        wider = config.build((*model.classes, "one more")).state_dict()
    return {key for key, tensor in target.items() if wider[key].shape != tensor.shape}


def _trunks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of an SSDLite detector's trunk, for backbones and for mask heads on crops (rcnn/heads/crops.py)."""
    copies = {}
    for key, tensor in tensors.items():
        if key.startswith(SSDLITE):
            for prefix in ("mask.encoder.", *BACKBONES):
                copies[key.replace(SSDLITE, prefix, 1)] = tensor
    return copies
