"""Published Mask2Former checkpoints: what a file's tensors say of the model that they are of.

Sizes are read off the tensors, never off a config, so a file can ask for no more than it brings. From transformers'
config.json come the names of the classes, the number of heads, and whether the model is of images or of video.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tubelet.core.errors import FormatError, InputError, WeightsError
from tubelet.core.protocol import Window
from tubelet.core.untrusted.documents import decode_json_as, read_json
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import InputConfig, KeepRatio
from tubelet.models.mask2former.decoder import JointConfig
from tubelet.models.mask2former.model import Mask2FormerConfig
from tubelet.models.mask2former.pixel_decoder import LEVELS, PixelDecoderConfig
from tubelet.models.weights.key_maps import from_detectron2, from_transformers, is_detectron2, is_transformers

POINTS = 4  # that a head of deformable attention looks at on each level
LARGEST_CONFIG = 10_000_000  # bytes of a config.json; those of 1,000 classes have 100,000

Described = tuple[Mask2FormerConfig, tuple[str, ...], dict[str, Tensor]]  # model, classes, tensors by our names

_RESNETS = {  # blocks of the four stages, and convolutions of a block
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
    """The model of a published file with these tensors, or None where their names are not known.

    Raises WeightsError where config.json is missing beside a file of transformers, or does not go with the tensors.
    """
    if is_transformers(tensors):
        told = _read_config(path)
        config = _config(path, from_transformers(tensors), video=_is_video(told, path), heads=_heads(told, path))
        return config, _names(told, path), from_transformers(tensors)
    if is_detectron2(tensors):
        video = not any("static_query" in key for key in tensors)  # as its image models call the queries
        ours = from_detectron2(tensors)
        classes = _told_names(metadata, path) or _numbered(len(_tensor(ours, "decoder.class_predictor.bias", path)) - 1)
        return _config(path, ours, video=video, heads=8), classes, ours
    return None


def _config(path: Path, tensors: Mapping[str, Tensor], *, video: bool, heads: int) -> Mask2FormerConfig:
    """A model of images has no code for time and takes frame by frame; their masks link its objects."""
    queries, channels = _shape(tensors, "decoder.queries_features.weight", path, 2)
    if channels % heads:
        raise WeightsError(f"{path}: expected a number of heads that divides its {channels} channels, got {heads}")
    weights, _ = _shape(tensors, "pixel_decoder.encoder.layers.0.self_attn.attention_weights.weight", path, 2)
    backbone = _backbone(tensors, path)
    pixels = PixelDecoderConfig(
        channels=channels,
        layers=_count(tensors, r"pixel_decoder\.encoder\.layers\.(\d+)\."),
        feed_forward=_shape(tensors, "pixel_decoder.encoder.layers.0.fc1.weight", path, 2)[0],
    )
    decoder = JointConfig(
        layers=_count(tensors, r"decoder\.layers\.(\d+)\."),
        heads=heads,
        feed_forward=_shape(tensors, "decoder.layers.0.fc1.weight", path, 2)[0],
        temporal_position=video,
    )
    return Mask2FormerConfig(
        backbone=BackboneConfig(name=backbone, frozen_stages=0),
        input=InputConfig(resize=KeepRatio(long=1333, short=480 if backbone.startswith("swin") else 360)),
        pixel_decoder=pixels.but(attention=pixels.attention.but(heads=max(weights // (LEVELS * POINTS), 1))),
        decoder=decoder,
        queries=queries,
        window=Window(length=None) if video else Window(),
    )


def _backbone(tensors: Mapping[str, Tensor], path: Path) -> str:
    if "backbone.body.patch_embed.proj.weight" in tensors:
        table = "backbone.body.layers_0.blocks.0.attn.relative_position_bias_table"
        window = (round(_shape(tensors, table, path, 2)[0] ** 0.5) + 1) // 2
        channels = len(tensors["backbone.body.patch_embed.proj.weight"])
        found: Any = (channels, _count(tensors, r"backbone\.body\.layers_2\.blocks\.(\d+)\."), window)
        name = _SWINS.get(found)
    else:
        blocks = [_count(tensors, rf"backbone\.body\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
        found = (*blocks, _count(tensors, r"backbone\.body\.layer1\.0\.bn(\d)\.") - 1)
        name = _RESNETS.get(found)
    if name is None:
        raise WeightsError(f"{path}: expected a Swin or ResNet backbone of a published size, got {found}")
    return name


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number at this place of a name."""
    numbers = [int(found[1]) for key in tensors if (found := re.match(pattern, key)) and len(found[1]) < 9]
    return min(max(numbers, default=-1) + 1, len(tensors))


def _shape(tensors: Mapping[str, Tensor], name: str, path: Path, sides: int) -> tuple[int, ...]:
    shape = tuple(_tensor(tensors, name, path).shape)
    if len(shape) != sides or not all(shape):
        raise WeightsError(f"{path}: expected {name} to have {sides} sides, got shape {shape}")
    return shape


def _tensor(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in tensors:
        raise WeightsError(f"{path}: weights of another model: nothing in it is our {name}")
    return tensors[name]


# transformers' config.json


def _read_config(path: Path) -> dict[str, Any]:
    beside = path.parent / "config.json"
    if not beside.is_file():
        raise WeightsError(f"{path}: expected transformers' config.json beside it, which has the names of the classes")
    try:
        told = read_json(beside, largest=LARGEST_CONFIG)
    except (InputError, FormatError) as error:
        raise WeightsError(str(error)) from None
    if not isinstance(told, dict) or "mask2former" not in str(told.get("model_type")):
        kind = told.get("model_type") if isinstance(told, dict) else type(told).__name__
        raise WeightsError(f"{beside}: expected the config of a mask2former, got {str(kind)[:40]!r}")
    return told


def _is_video(told: Mapping[str, Any], path: Path) -> bool:
    """By its class, or by the name under which the hub keeps it: not all say so in their config."""
    where = (told.get("model_type"), told.get("architectures"), told.get("_name_or_path"))
    return any("video" in str(text).lower() for text in where) or "video-mask2former" in str(path)


def _heads(told: Mapping[str, Any], path: Path) -> int:
    heads = told.get("num_attention_heads", 8)
    if not isinstance(heads, int) or not 1 <= heads <= 1024:
        raise WeightsError(f"{path.parent / 'config.json'}: expected num_attention_heads from 1 to 1024, got {heads!r}")
    return heads


def _names(told: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Class names by id; the number of labels alone where there are no names."""
    beside, listed = path.parent / "config.json", told.get("id2label")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise WeightsError(f"{beside}: expected id2label, the names of the classes")
    if set(listed) != {str(n) for n in range(len(listed))}:
        raise WeightsError(f"{beside}: expected id2label to count its {len(listed)} classes from 0")
    return tuple(listed[str(n)] for n in range(len(listed)))


# Detectron2 has no names beside its tensors; whoever converts the file may add them


def _told_names(metadata: Mapping[str, str], path: Path) -> tuple[str, ...] | None:
    if "classes" not in metadata:
        return None
    try:
        return tuple(decode_json_as(list[str], metadata["classes"], "its classes"))
    except FormatError as error:
        raise WeightsError(f"{path}: expected a list of class names in its metadata: {error}") from None


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {n}" for n in range(1, count + 1))
