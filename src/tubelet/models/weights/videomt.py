"""VidEoMT in the names of transformers, and EoMT for images, whose tensors are the same but for the propagation.

As elsewhere, sizes come from the tensors; config.json gives the class names, the number of heads, and the number of
query layers where no tensor tells it. EoMT with DINOv3 has rotary positions and is no VidEoMT of ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

from tubelet.core.errors import ConfigError, WeightsError
from tubelet.models.inputs import Fit, InputConfig
from tubelet.models.videomt.encoder import ViTConfig
from tubelet.models.videomt.model import VidEoMTConfig
from tubelet.models.weights import sizes
from tubelet.models.weights.config_json import class_names, read_config, whole_number
from tubelet.models.weights.key_maps import DROPPED, Rules, joined, renamed

BODY = "network.backbone.body."
PATCHES = BODY + "patch_embed.proj.weight"
POSITIONS = BODY + "pos_embed"
UPDATER = "query_updater.weight"

_LAYER = r"layers\.(\d+)\."
_BLOCK = BODY + r"blocks.\1."
_RULES: Rules = [
    (r"embeddings\.cls_token", BODY + "cls_token"),
    (r"embeddings\.register_tokens", BODY + "reg_token"),
    (r"embeddings\.position_embeddings\.weight", POSITIONS),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", BODY + r"patch_embed.proj.\1"),
    (_LAYER + r"(norm\d)\.(.*)", _BLOCK + r"\2.\3"),
    (_LAYER + r"attention\.([qkv])_proj\.(.*)", _BLOCK + r"attn.\2.\3"),
    (_LAYER + r"attention\.(?:out_proj|o_proj)\.(.*)", _BLOCK + r"attn.proj.\2"),
    (_LAYER + r"layer_scale(\d)\.lambda1", _BLOCK + r"ls\2.gamma"),
    (_LAYER + r"(mlp\..*)", _BLOCK + r"\2"),
    (r"layernorm\.(.*)", BODY + r"norm.\1"),
    (r"(query\.weight|query_updater\..*)", r"network.\1"),
    (r"upscale_block\.block\.(\d+)\.conv1\.(.*)", r"network.heads.upscale.\1.expand.\2"),
    (r"upscale_block\.block\.(\d+)\.conv2\.(.*)", r"network.heads.upscale.\1.smooth.\2"),
    (r"upscale_block\.block\.(\d+)\.layernorm2d\.(.*)", r"network.heads.upscale.\1.norm.\2"),
    (r"mask_head\.fc1\.(.*)", r"network.heads.mask_predictor.0.\1"),
    (r"mask_head\.fc2\.(.*)", r"network.heads.mask_predictor.2.\1"),
    (r"mask_head\.fc3\.(.*)", r"network.heads.mask_predictor.4.\1"),
    (r"class_predictor\.(.*)", r"network.heads.class_predictor.\1"),
    (r"embeddings\.(mask_token|position_ids)|attn_mask_probs|criterion\..*", DROPPED),
]


def is_eomt(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are named as in transformers' VidEoMT or EoMT.

    Example:
        >>> from tubelet.models.weights.videomt import is_eomt
        >>> is_eomt({name: torch.zeros(1) for name in ("query.weight", "mask_head.fc1.weight", "embeddings.cls_token")})
        True
    """
    return {"query.weight", "mask_head.fc1.weight", "embeddings.cls_token"} <= tensors.keys()


def from_eomt(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename transformers' VideomtForUniversalSegmentation or EomtForUniversalSegmentation to our VidEoMT.

    Example:
        >>> from tubelet.models.weights.videomt import from_eomt
        >>> list(from_eomt({"class_predictor.bias": torch.zeros(41)}))
        ['network.heads.class_predictor.bias']
    """
    ours = joined(renamed(tensors, _RULES))
    positions = ours.get(POSITIONS)
    if positions is not None and positions.ndim == 2:
        ours[POSITIONS] = positions[None]
    return ours


def describe_videomt(
    path: Path, tensors: Mapping[str, Tensor]
) -> tuple[VidEoMTConfig, tuple[str, ...], dict[str, Tensor]]:
    """Infer config, class names and tensors by our names; raises WeightsError for an EoMT of images.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.models.weights.videomt import describe_videomt
        >>> describe_videomt(Path("eomt/model.safetensors"), {"query.weight": torch.zeros(5, 8)})
        Traceback (most recent call last):
        ...
        tubelet.core.errors.WeightsError: eomt/model.safetensors: ... it has no query_updater.weight: ...
    """
    if UPDATER not in tensors:
        use = "train a VidEoMT from it with init=PATH"
        raise WeightsError(f"{path}: an EoMT of images, not of video: it has no {UPDATER}: {use}")

    description = read_config(path, "videomt")
    ours = from_eomt(tensors)
    probabilities = tensors.get("attn_mask_probs")
    if probabilities is not None and probabilities.ndim == 1 and len(probabilities):
        query_layers = len(probabilities)
    else:
        query_layers = whole_number(description, "num_blocks", 4, path)
    heads = whole_number(description, "num_attention_heads", 16, path)
    try:
        return _config(path, ours, heads, query_layers), class_names(description, path), ours
    except ConfigError as error:
        raise WeightsError(f"{path}: expected a VidEoMT with DINOv2's ViT and registers: {error}") from None


def resized_vit(tensors: Mapping[str, Tensor], encoder: ViTConfig) -> dict[str, Tensor]:
    """Resample a ViT's patch embedding and positions to those of an encoder, as DINOv2's 14 pixels to 16.

    Positions must be of a square of patches; what has another form stays as it is.

    Example:
        >>> from tubelet.models.videomt.encoder import ViTConfig
        >>> from tubelet.models.weights.videomt import resized_vit
        >>> tensors = {"network.backbone.body.pos_embed": torch.zeros(1, 37 * 37, 384)}
        >>> resized_vit(tensors, ViTConfig())["network.backbone.body.pos_embed"].shape
        torch.Size([1, 1600, 384])
    """
    resized = dict(tensors)
    patches = tensors.get(PATCHES)
    if patches is not None and patches.ndim == 4 and encoder.trunk is None:
        resized[PATCHES] = resample_patch_embed(patches, [encoder.patch, encoder.patch])

    positions = tensors.get(POSITIONS)
    if positions is None or positions.ndim != 3:
        return resized
    side = math.isqrt(positions.shape[1])
    rows, columns = encoder.grid
    if side * side == positions.shape[1] and positions.shape[1] != rows * columns:
        resized[POSITIONS] = resample_abs_pos_embed(positions, [rows, columns], [side, side], num_prefix_tokens=0)
    return resized


def _config(path: Path, tensors: Mapping[str, Tensor], heads: int, query_layers: int) -> VidEoMTConfig:
    queries, channels = sizes.shape(tensors, "network.query.weight", path, 2)
    patch = sizes.shape(tensors, PATCHES, path, 4)[2]
    patches = sizes.shape(tensors, POSITIONS, path, 3)[1]
    rows = math.isqrt(patches)
    if rows * rows != patches:
        raise WeightsError(f"{path}: expected positions of a square of patches, got {patches}")

    hidden = sizes.shape(tensors, BODY + "blocks.0.mlp.fc1.weight", path, 2)[0]
    side = patch * rows
    encoder = ViTConfig.from_tree(
        {
            "channels": channels,
            "layers": sizes.count(tensors, re.escape(BODY) + r"blocks\.(\d+)\."),
            "query_layers": query_layers,
            "heads": heads,
            "patch": patch,
            "size": (side, side),
            "registers": sizes.shape(tensors, BODY + "reg_token", path, 3)[1],
            "mlp_ratio": hidden / channels,
        }
    )
    resize = Fit.from_tree({"height": side, "width": side})
    return VidEoMTConfig(encoder=encoder, input=InputConfig(resize=resize), queries=queries)
