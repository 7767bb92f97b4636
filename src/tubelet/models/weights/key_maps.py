"""Tensors of public models, name by name onto ours. Pure: names and tensors in, names and tensors out.

A name that no rule knows stays as it is, so that whoever checks the fit can say which one it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

COCO_IDS = tuple(i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})  # the 80 in use

Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]  # a pattern for a whole name, and our name


def from_coco_ssdlite(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The public COCO detector's tensors -> ours: of its 91 class scores the 80 that COCO uses stay."""
    out = {}
    for key, tensor in tensors.items():
        if re.fullmatch(r"cls\.\d+\.pw\.(weight|bias)", key):
            tensor = tensor.reshape(-1, 91, *tensor.shape[1:])[:, list(COCO_IDS)].flatten(0, 1)
        out[f"detector.{key}"] = tensor
    return out


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
    """A torchvision Mask R-CNN with FPN, tensor by tensor, onto the two-stage detector and the mask head.

    `norm_eps` is what its batch norms add to the variance; ours add 1e-5, so a difference goes into the variances.
    """
    out = {}
    for key, tensor in tensors.items():
        if key.endswith("running_var"):
            tensor = tensor + (norm_eps - 1e-5)
        convolution = re.fullmatch(r"roi_heads\.mask_head\.(\d)\.0\.(weight|bias)", key)
        if convolution:  # each of their blocks is a convolution and a ReLU; ours lie in one sequence
            out[f"mask.convs.{2 * int(convolution[1])}.{convolution[2]}"] = tensor
        for theirs, ours in _TORCHVISION.items():
            if key.startswith(theirs):
                out[ours + key.removeprefix(theirs)] = tensor
    return out


# Mask2Former: names of transformers (since 2023, and those of its modules since 2026), and of the authors' Detectron2


def from_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A transformers Mask2FormerForUniversalSegmentation with a Swin or ResNet backbone -> our Mask2Former."""
    return _joined(_split(_renamed(tensors, _TRANSFORMERS)))


def from_detectron2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' Mask2Former, for images or video, with a Swin or ResNet backbone -> our Mask2Former."""
    return _split(_renamed(tensors, _DETECTRON2))


def is_transformers(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of transformers' Mask2Former."""
    return any(key.startswith("model.pixel_level_module.") for key in tensors)


def is_detectron2(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of the authors' Mask2Former."""
    return any(key.startswith("sem_seg_head.") for key in tensors)


def _next_stage(match: re.Match[str]) -> str:
    """Theirs shrinks the map at the end of a stage, timm at the start of the next."""
    return f"backbone.body.layers_{int(match[1]) + 1}.downsample.{match[2]}"


def _resnet_layer(match: re.Match[str]) -> str:
    stage, block, part, kind, rest = match.groups()
    here = f"backbone.body.layer{int(stage) + 1}.{block}"
    if part == "shortcut":
        return f"{here}.downsample.{int(kind == 'normalization')}.{rest}"
    return f"{here}.{'bn' if kind == 'normalization' else 'conv'}{int(part.removeprefix('layer.')) + 1}.{rest}"


def _detectron2_resnet(match: re.Match[str]) -> str:
    stage, block, part, norm, rest = match.groups()
    here = f"backbone.body.layer{int(stage) - 1}.{block}"
    if part == "shortcut":
        return f"{here}.downsample.{int(bool(norm))}.{rest}"
    return f"{here}.{part.replace('conv', 'bn') if norm else part}.{rest}"


def _before(name: str) -> Callable[[re.Match[str]], str]:
    """The norm of stage 1 to 4, counted from 1 there and from 0 here."""
    return lambda match: f"{name}.{int(match[1]) - 1}.{match[2]}"


_DROPPED = ""
_SWIN = r"model\.pixel_level_module\.encoder\.(?:swin\.)?"
_BLOCK = _SWIN + r"encoder\.layers\.(\d+)\.blocks\.(\d+)\."
_OURS = r"backbone.body.layers_\1.blocks.\2."
_TRANSFORMERS: Rules = [
    (_SWIN + r"embeddings\.patch_embeddings\.projection\.(.*)", r"backbone.body.patch_embed.proj.\1"),
    (_SWIN + r"embeddings\.norm\.(.*)", r"backbone.body.patch_embed.norm.\1"),
    (_SWIN + r"encoder\.layers\.(\d+)\.downsample\.(.*)", _next_stage),
    (_SWIN + r"hidden_states_norms\.stage(\d)\.(.*)", _before("backbone.norms")),
    (_SWIN + r"layernorm\.\w+", _DROPPED),  # of the classifier that the backbone once was
    (_BLOCK + r"attention\.\w+\.relative_position_index", _DROPPED),
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
    (r"criterion\..*", _DROPPED),
]

_PIXELS = r"sem_seg_head\.(?:pixel_decoder\.)?"  # the first version had no name for the part
_QUERIES = r"sem_seg_head\.predictor\."
_DETECTRON2: Rules = [
    (r"backbone\.stem\.conv1\.norm\.(.*)", r"backbone.body.bn1.\1"),
    (r"backbone\.stem\.conv1\.(.*)", r"backbone.body.conv1.\1"),
    (r"backbone\.res(\d)\.(\d+)\.(shortcut|conv\d)\.(norm\.)?(.*)", _detectron2_resnet),
    (r"backbone\.layers\.(\d+)\.downsample\.(.*)", _next_stage),
    (r"backbone\.layers\.\d+\.blocks\.\d+\.attn\.relative_position_index", _DROPPED),
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
    (r"criterion\..*|pixel_(mean|std)", _DROPPED),
]


def _renamed(tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    named = ((_rename(key, rules), tensor) for key, tensor in tensors.items())
    return {key: tensor for key, tensor in named if key != _DROPPED}


def _rename(key: str, rules: Rules) -> str:
    for pattern, ours in rules:
        if match := re.fullmatch(pattern, key):
            return match.expand(ours) if isinstance(ours, str) else ours(match)
    return key


def _split(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fused projections of queries, keys and values -> three."""
    out: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        fused = re.fullmatch(r"(decoder\..*)\.in_proj_(weight|bias)", key)
        if fused and len(tensor) % 3 == 0:
            out |= {f"{fused[1]}.{n}_proj.{fused[2]}": part for n, part in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            out[key] = tensor
    return out


def _joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Three projections of queries, keys and values -> one, as timm has them."""
    for key in [key for key in tensors if re.fullmatch(r".*\.attn\.q\.\w+", key)]:
        names = [re.sub(r"\.q\.(\w+)$", rf".{n}.\1", key) for n in "qkv"]
        if all(name in tensors for name in names):
            tensors[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat([tensors.pop(name) for name in names])
    return tensors
