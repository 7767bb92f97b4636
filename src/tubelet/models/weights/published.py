"""Published checkpoints of Mask2Former and VidEoMT: infer the model's config from a file's tensors.

Sizes come from the shapes of the tensors, never from a config, so that a hostile file cannot make us allocate more than
it holds. transformers' config.json gives the class names, the number of heads, and whether the model is for video.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tubelet.core.errors import FormatError, WeightsError
from tubelet.core.protocol import Window
from tubelet.core.untrusted.documents import decode_json_as
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import InputConfig, KeepRatio
from tubelet.models.mask2former.decoder import JointConfig
from tubelet.models.mask2former.model import Mask2FormerConfig
from tubelet.models.mask2former.pixel_decoder import LEVELS, PixelDecoderConfig
from tubelet.models.videomt.model import VidEoMTConfig
from tubelet.models.weights import sizes
from tubelet.models.weights.config_json import class_names, read_config, whole_number
from tubelet.models.weights.key_maps import from_detectron2, from_transformers, is_detectron2, is_transformers
from tubelet.models.weights.videomt import describe_videomt, is_eomt

POINTS = 4  # sampled by a head of deformable attention on each level

# model, classes, tensors by our names
Described = tuple[Mask2FormerConfig | VidEoMTConfig, tuple[str, ...], dict[str, Tensor]]

_RESNETS = {  # blocks of the four stages, and convolutions per block
    (2, 2, 2, 2, 2): "resnet18",
    (3, 4, 6, 3, 2): "resnet34",
    (3, 4, 6, 3, 3): "resnet50",
    (3, 4, 23, 3, 3): "resnet101",
    (3, 8, 36, 3, 3): "resnet152",
}
_SWINS = {  # channels, blocks of the third stage, side of a window
    (96, 6, 7): "swin_tiny_patch4_window7_224",
    (96, 18, 7): "swin_small_patch4_window7_224",
    (128, 18, 7): "swin_base_patch4_window7_224",
    (128, 18, 12): "swin_base_patch4_window12_384",
    (192, 18, 7): "swin_large_patch4_window7_224",
    (192, 18, 12): "swin_large_patch4_window12_384",
}


def describe(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Described | None:
    """Infer the model of a published file.

    Args:
        path: Of the file; its config.json is read if the file is transformers'.
        tensors: Of the file, by its names.
        metadata: Of the file; a Detectron2 file may have class names in it.

    Returns:
        Config, class names, and tensors by our names; None if the tensors' names are unknown.

    Raises:
        WeightsError: if config.json is missing or does not fit the tensors.
    """
    if is_eomt(tensors):
        return describe_videomt(path, tensors)

    if is_transformers(tensors):
        description = read_config(path, "mask2former")
        video = _is_video(description, path)
        heads = whole_number(description, "num_attention_heads", 8, path)
        renamed = from_transformers(tensors)
        return _config(path, renamed, video=video, heads=heads), class_names(description, path), renamed

    if is_detectron2(tensors):
        video = not any("static_query" in key for key in tensors)  # the queries' name in its image models
        renamed = from_detectron2(tensors)
        classes = _names_in_metadata(metadata, path)
        if not classes:
            classes = _numbered(len(sizes.tensor(renamed, "decoder.class_predictor.bias", path)) - 1)
        return _config(path, renamed, video=video, heads=8), classes, renamed
    return None


def _config(path: Path, tensors: Mapping[str, Tensor], *, video: bool, heads: int) -> Mask2FormerConfig:
    """An image model has no temporal position; it reads one frame at a time, and masks link the objects."""
    queries, channels = sizes.shape(tensors, "decoder.queries_features.weight", path, 2)
    if channels % heads:
        raise WeightsError(f"{path}: expected a number of heads that divides its {channels} channels, got {heads}")
    weights, _ = sizes.shape(tensors, "pixel_decoder.encoder.layers.0.self_attn.attention_weights.weight", path, 2)
    backbone = _backbone(tensors, path)
    pixels = PixelDecoderConfig(
        channels=channels,
        layers=sizes.count(tensors, r"pixel_decoder\.encoder\.layers\.(\d+)\."),
        feed_forward=sizes.shape(tensors, "pixel_decoder.encoder.layers.0.fc1.weight", path, 2)[0],
    )
    decoder = JointConfig(
        layers=sizes.count(tensors, r"decoder\.layers\.(\d+)\."),
        heads=heads,
        feed_forward=sizes.shape(tensors, "decoder.layers.0.fc1.weight", path, 2)[0],
        temporal_position=video,
    )
    short = 480 if backbone.startswith("swin") else 360
    return Mask2FormerConfig(
        backbone=BackboneConfig(name=backbone, frozen_stages=0),
        input=InputConfig(resize=KeepRatio(long=1333, short=short)),
        pixel_decoder=pixels.but(attention=pixels.attention.but(heads=max(weights // (LEVELS * POINTS), 1))),
        decoder=decoder,
        queries=queries,
        window=Window(length=None) if video else Window(),
    )


def _backbone(tensors: Mapping[str, Tensor], path: Path) -> str:
    if "backbone.body.patch_embed.proj.weight" in tensors:
        table = "backbone.body.layers_0.blocks.0.attn.relative_position_bias_table"
        window = (round(sizes.shape(tensors, table, path, 2)[0] ** 0.5) + 1) // 2
        channels = len(tensors["backbone.body.patch_embed.proj.weight"])
        blocks = sizes.count(tensors, r"backbone\.body\.layers_2\.blocks\.(\d+)\.")
        size: Any = (channels, blocks, window)
        name = _SWINS.get(size)
    else:
        stages = [sizes.count(tensors, rf"backbone\.body\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
        convolutions = sizes.count(tensors, r"backbone\.body\.layer1\.0\.bn(\d)\.") - 1
        size = (*stages, convolutions)
        name = _RESNETS.get(size)
    if name is None:
        raise WeightsError(f"{path}: expected a Swin or ResNet backbone of a published size, got {size}")
    return name


# transformers' config.json


def _is_video(description: Mapping[str, Any], path: Path) -> bool:
    """By the config, or by the model's name on the hub, because not all configs say so."""
    fields = ("model_type", "architectures", "_name_or_path")
    if any("video" in str(description.get(field)).lower() for field in fields):
        return True
    return "video-mask2former" in str(path)


# Detectron2 files have no class names, unless the conversion added them to the metadata


def _names_in_metadata(metadata: Mapping[str, str], path: Path) -> tuple[str, ...] | None:
    if "classes" not in metadata:
        return None
    try:
        return tuple(decode_json_as(list[str], metadata["classes"], "its classes"))
    except FormatError as error:
        raise WeightsError(f"{path}: expected a list of class names in its metadata: {error}") from None


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {n}" for n in range(1, count + 1))
