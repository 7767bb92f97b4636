"""Rename the tensors of public models to our names.

A name that no rule matches stays as it is, so that an error about unknown tensors can name it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED_IDS)  # of COCO's 80 classes

Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]  # pattern of the whole name, and our name


def from_coco_ssdlite(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the public COCO detector, and keep the 80 used of its 91 class scores.

    Example:
        >>> from tubelet.models.weights.key_maps import from_coco_ssdlite
        >>> renamed = from_coco_ssdlite({"cls.0.pw.bias": torch.zeros(6 * 91)})
        >>> {name: len(tensor) for name, tensor in renamed.items()}
        {'detector.cls.0.pw.bias': 480}
    """
    renamed = {}
    for key, tensor in tensors.items():
        if re.fullmatch(r"cls\.\d+\.pw\.(weight|bias)", key):
            by_anchor = tensor.reshape(-1, 91, *tensor.shape[1:])
            tensor = by_anchor[:, list(COCO_IDS)].flatten(0, 1)
        renamed[f"detector.{key}"] = tensor
    return renamed


def from_nanodet_plus(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a NanoDet-Plus with folded batch norms; its last layers are split by what they predict.

    Example:
        >>> from tubelet.models.weights.key_maps import from_nanodet_plus
        >>> list(from_nanodet_plus({"heads.0.2.bias": torch.zeros(112)}))
        ['detector.classes.0.bias', 'detector.distances.0.bias']
    """
    out = {}
    for key, tensor in tensors.items():
        last = re.fullmatch(r"heads\.(\d)\.2\.(weight|bias)", key)
        if last is None:
            out[f"detector.{key}"] = tensor
            continue
        level, name = last.groups()
        distances = 4 * 8
        out[f"detector.classes.{level}.{name}"] = tensor[:-distances]
        out[f"detector.distances.{level}.{name}"] = tensor[-distances:]
    return out


_TORCHVISION = {  # their prefix -> ours
    "backbone.body.": "detector.backbone.body.",
    "backbone.fpn.": "detector.fpn.",
    "rpn.": "detector.rpn.",
    "roi_heads.box_head.": "detector.box_head.",
    "roi_heads.box_predictor.": "detector.box_predictor.",
    "roi_heads.mask_predictor.conv5_mask.": "mask.deconv.",
    "roi_heads.mask_predictor.mask_fcn_logits.": "mask.logits.",
}


def from_torchvision(tensors: Mapping[str, Tensor], norm_eps: float = 1e-5) -> dict[str, Tensor]:
    """Rename a torchvision Mask R-CNN with FPN to our two-stage detector and mask head.

    `norm_eps` is the eps of its batch norms; ours have 1e-5, so the difference is added to the variances.

    Example:
        >>> from tubelet.models.weights.key_maps import from_torchvision
        >>> list(from_torchvision({"roi_heads.mask_head.1.0.bias": torch.zeros(256)}))
        ['mask.convs.2.bias']
    """
    renamed = {}
    for key, tensor in tensors.items():
        if key.endswith("running_var"):
            tensor = tensor + (norm_eps - 1e-5)
        convolution = re.fullmatch(r"roi_heads\.mask_head\.(\d)\.0\.(weight|bias)", key)
        if convolution:  # theirs are blocks of a convolution and a ReLU, ours are one sequence
            number, part = convolution.groups()
            renamed[f"mask.convs.{2 * int(number)}.{part}"] = tensor

        for theirs, ours in _TORCHVISION.items():
            if key.startswith(theirs):
                renamed[ours + key.removeprefix(theirs)] = tensor
    return renamed


# Mask2Former: names of transformers (of 2023, and its modules' names of 2026), and of the authors' Detectron2


def from_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename transformers' Mask2FormerForUniversalSegmentation with a Swin or ResNet backbone.

    Example:
        >>> from tubelet.models.weights.key_maps import from_transformers
        >>> list(from_transformers({"class_predictor.bias": torch.zeros(41)}))
        ['decoder.class_predictor.bias']
    """
    return joined(_split(renamed(tensors, _TRANSFORMERS)))


def from_detectron2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' Mask2Former, for images or video, with a Swin or ResNet backbone.

    Example:
        >>> from tubelet.models.weights.key_maps import from_detectron2
        >>> list(from_detectron2({"sem_seg_head.predictor.class_embed.bias": torch.zeros(41)}))
        ['decoder.class_predictor.bias']
    """
    return _split(renamed(tensors, _DETECTRON2))


def is_transformers(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are named as in transformers' Mask2Former.

    Example:
        >>> from tubelet.models.weights.key_maps import is_transformers
        >>> is_transformers({"model.pixel_level_module.decoder.level_embed": torch.zeros(3, 8)})
        True
    """
    return any(key.startswith("model.pixel_level_module.") for key in tensors)


def is_detectron2(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are named as in the authors' Mask2Former.

    Example:
        >>> from tubelet.models.weights.key_maps import is_detectron2
        >>> is_detectron2({"sem_seg_head.predictor.class_embed.bias": torch.zeros(41)})
        True
    """
    return any(key.startswith("sem_seg_head.") for key in tensors)


def _next_stage(match: re.Match[str]) -> str:
    """Their stages end with the downsampling; timm's start with it."""
    return f"backbone.body.layers_{int(match[1]) + 1}.downsample.{match[2]}"


def _resnet_layer(match: re.Match[str]) -> str:
    stage, block, part, kind, rest = match.groups()
    is_norm = kind == "normalization"
    prefix = f"backbone.body.layer{int(stage) + 1}.{block}"
    if part == "shortcut":
        return f"{prefix}.downsample.{int(is_norm)}.{rest}"

    number = int(part.removeprefix("layer.")) + 1
    name = "bn" if is_norm else "conv"
    return f"{prefix}.{name}{number}.{rest}"


def _detectron2_resnet(match: re.Match[str]) -> str:
    stage, block, part, norm, rest = match.groups()
    prefix = f"backbone.body.layer{int(stage) - 1}.{block}"
    if part == "shortcut":
        return f"{prefix}.downsample.{int(bool(norm))}.{rest}"

    name = part.replace("conv", "bn") if norm else part
    return f"{prefix}.{name}.{rest}"


def _from_one(name: str) -> Callable[[re.Match[str]], str]:
    """Their stages are numbered from 1, ours from 0."""
    return lambda match: f"{name}.{int(match[1]) - 1}.{match[2]}"


DROPPED = ""  # what a rule gives for a tensor that is not wanted
_SWIN = r"model\.pixel_level_module\.encoder\.(?:swin\.)?"
_BLOCK = _SWIN + r"encoder\.layers\.(\d+)\.blocks\.(\d+)\."
_OURS = r"backbone.body.layers_\1.blocks.\2."
_TRANSFORMERS: Rules = [
    (_SWIN + r"embeddings\.patch_embeddings\.projection\.(.*)", r"backbone.body.patch_embed.proj.\1"),
    (_SWIN + r"embeddings\.norm\.(.*)", r"backbone.body.patch_embed.norm.\1"),
    (_SWIN + r"encoder\.layers\.(\d+)\.downsample\.(.*)", _next_stage),
    (_SWIN + r"hidden_states_norms\.stage(\d)\.(.*)", _from_one("backbone.norms")),
    (_SWIN + r"layernorm\.\w+", DROPPED),  # only a classifier uses it
    (_BLOCK + r"attention\.\w+\.relative_position_index", DROPPED),
    (_BLOCK + r"attention\.\w+\.relative_position_bias_table", _OURS + "attn.relative_position_bias_table"),
    (_BLOCK + r"attention\.(?:self\.)?([qkv])(?:uery|ey|alue|_proj)\.(.*)", _OURS + r"attn.\3.\4"),
    (_BLOCK + r"attention\.(?:output\.dense|o_proj)\.(.*)", _OURS + r"attn.proj.\3"),
    (_BLOCK + r"layernorm_before\.(.*)", _OURS + r"norm1.\3"),
    (_BLOCK + r"layernorm_after\.(.*)", _OURS + r"norm2.\3"),
    (_BLOCK + r"(?:intermediate\.dense|mlp\.fc1)\.(.*)", _OURS + r"mlp.fc1.\3"),
    (_BLOCK + r"(?:output\.dense|mlp\.fc2)\.(.*)", _OURS + r"mlp.fc2.\3"),
    (r"model\.pixel_level_module\.encoder\.embedder\.embedder\.convolution\.(.*)", r"backbone.body.conv1.\1"),
    (r"model\.pixel_level_module\.encoder\.embedder\.embedder\.normalization\.(.*)", r"backbone.body.bn1.\1"),
    (
        r"model\.pixel_level_module\.encoder\.encoder\.stages\.(\d)\.layers\.(\d+)\."
        r"(shortcut|layer\.\d)\.(convolution|normalization)\.(.*)",
        _resnet_layer,
    ),
    (r"model\.pixel_level_module\.decoder\.(.*)", r"pixel_decoder.\1"),
    (r"model\.transformer_module\.decoder\.(.*)", r"decoder.\1"),
    (r"model\.transformer_module\.(.*)", r"decoder.\1"),
    (r"class_predictor\.(.*)", r"decoder.class_predictor.\1"),
    (r"criterion\..*", DROPPED),
]

_PIXELS = r"sem_seg_head\.(?:pixel_decoder\.)?"  # the first version did not name the pixel decoder
_QUERIES = r"sem_seg_head\.predictor\."
_DETECTRON2: Rules = [
    (r"backbone\.stem\.conv1\.norm\.(.*)", r"backbone.body.bn1.\1"),
    (r"backbone\.stem\.conv1\.(.*)", r"backbone.body.conv1.\1"),
    (r"backbone\.res(\d)\.(\d+)\.(shortcut|conv\d)\.(norm\.)?(.*)", _detectron2_resnet),
    (r"backbone\.layers\.(\d+)\.downsample\.(.*)", _next_stage),
    (r"backbone\.layers\.\d+\.blocks\.\d+\.attn\.relative_position_index", DROPPED),
    (r"backbone\.layers\.(\d+)\.(blocks\..*)", r"backbone.body.layers_\1.\2"),
    (r"backbone\.(patch_embed\..*)", r"backbone.body.\1"),
    (r"backbone\.norm(\d)\.(.*)", r"backbone.norms.\1.\2"),
    (_QUERIES + r"(?:query_feat|static_query)\.(.*)", r"decoder.queries_features.\1"),
    (_QUERIES + r"query_embed\.(.*)", r"decoder.queries_embedder.\1"),
    (_QUERIES + r"level_embed\.(.*)", r"decoder.level_embed.\1"),
    (_QUERIES + r"decoder_norm\.(.*)", r"decoder.layernorm.\1"),
    (_QUERIES + r"class_embed\.(.*)", r"decoder.class_predictor.\1"),
    (_QUERIES + r"mask_embed\.layers\.(\d)\.(.*)", r"decoder.mask_predictor.mask_embedder.\1.0.\2"),
    (_QUERIES + r"transformer_cross_attention_layers\.(\d+)\.multihead_attn\.(.*)", r"decoder.layers.\1.cross_attn.\2"),
    (
        _QUERIES + r"transformer_cross_attention_layers\.(\d+)\.norm\.(.*)",
        r"decoder.layers.\1.cross_attn_layer_norm.\2",
    ),
    (_QUERIES + r"transformer_self_attention_layers\.(\d+)\.self_attn\.(.*)", r"decoder.layers.\1.self_attn.\2"),
    (_QUERIES + r"transformer_self_attention_layers\.(\d+)\.norm\.(.*)", r"decoder.layers.\1.self_attn_layer_norm.\2"),
    (_QUERIES + r"transformer_ffn_layers\.(\d+)\.linear(\d)\.(.*)", r"decoder.layers.\1.fc\2.\3"),
    (_QUERIES + r"transformer_ffn_layers\.(\d+)\.norm\.(.*)", r"decoder.layers.\1.final_layer_norm.\2"),
    (_PIXELS + r"input_proj\.(.*)", r"pixel_decoder.input_projections.\1"),
    (_PIXELS + r"transformer\.level_embed", "pixel_decoder.level_embed"),
    (_PIXELS + r"transformer\.encoder\.layers\.(\d+)\.linear(\d)\.(.*)", r"pixel_decoder.encoder.layers.\1.fc\2.\3"),
    (
        _PIXELS + r"transformer\.encoder\.layers\.(\d+)\.norm1\.(.*)",
        r"pixel_decoder.encoder.layers.\1.self_attn_layer_norm.\2",
    ),
    (
        _PIXELS + r"transformer\.encoder\.layers\.(\d+)\.norm2\.(.*)",
        r"pixel_decoder.encoder.layers.\1.final_layer_norm.\2",
    ),
    (_PIXELS + r"transformer\.encoder\.layers\.(\d+)\.(self_attn\..*)", r"pixel_decoder.encoder.layers.\1.\2"),
    (_PIXELS + r"mask_features\.(.*)", r"pixel_decoder.mask_projection.\1"),
    (_PIXELS + r"(adapter|layer)_1\.norm\.(.*)", r"pixel_decoder.\1_1.1.\2"),
    (_PIXELS + r"(adapter|layer)_1\.(.*)", r"pixel_decoder.\1_1.0.\2"),
    (r"criterion\..*|pixel_(mean|std)", DROPPED),
]


def renamed(tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Rename tensors by the first rule that matches the whole name; drop those whose rule gives DROPPED.

    Example:
        >>> from tubelet.models.weights.key_maps import DROPPED, renamed
        >>> rules = [("weight", "kernel"), ("step", DROPPED)]
        >>> list(renamed({"weight": torch.zeros(1), "step": torch.zeros(1)}, rules))
        ['kernel']
    """
    ours = {_rename(key, rules): tensor for key, tensor in tensors.items()}
    ours.pop(DROPPED, None)
    return ours


def _rename(key: str, rules: Rules) -> str:
    for pattern, ours in rules:
        if match := re.fullmatch(pattern, key):
            if isinstance(ours, str):
                return match.expand(ours)
            return ours(match)
    return key


def _split(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split joint projections of queries, keys and values into three."""
    separate: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        joint = re.fullmatch(r"(decoder\..*)\.in_proj_(weight|bias)", key)
        if joint is None or len(tensor) % 3:
            separate[key] = tensor
            continue
        module, part = joint.groups()
        for letter, third in zip("qkv", tensor.chunk(3), strict=True):
            separate[f"{module}.{letter}_proj.{part}"] = third
    return separate


def joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join the three projections of queries, keys and values of Swin and ViT, as timm does.

    Example:
        >>> from tubelet.models.weights.key_maps import joined
        >>> parts = {f"blocks.0.attn.{letter}.bias": torch.zeros(8) for letter in "qkv"}
        >>> {name: len(tensor) for name, tensor in joined(parts).items()}
        {'blocks.0.attn.qkv.bias': 24}
    """
    of_queries = [key for key in tensors if re.fullmatch(r".*\.attn\.q\.\w+", key)]
    for key in of_queries:
        names = [re.sub(r"\.q\.(\w+)$", rf".{letter}.\1", key) for letter in "qkv"]
        if all(name in tensors for name in names):
            parts = [tensors.pop(name) for name in names]
            tensors[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)
    return tensors
