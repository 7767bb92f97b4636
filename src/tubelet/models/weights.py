"""Where weights come from: bundled with the package, a file, or a public model's layout mapped onto ours.

Files are safetensors; nothing is ever unpickled from a path that a user gives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tubelet.core.devices import choose_device
from tubelet.core.errors import ConfigError, WeightsError, nearest
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN

ModelConfig = MaskTrackConfig  # becomes the union of the families' configs, told apart by `kind`
_ANY_MODEL: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)

BUNDLED = Path(__file__).parent / "bundled"
FORMAT = "1"  # of the metadata beside the tensors: tubelet, config, classes
COCO_IDS = tuple(i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})  # the 80 in use


@dataclass(frozen=True, slots=True)
class Listed:
    """A model that can be named: what `tubelet list models` shows."""

    name: str
    where: str
    megabytes: float
    classes: int
    licence: str


def list_models() -> list[Listed]:
    """The bundled models."""
    rows = []
    for path in sorted(BUNDLED.glob("*.safetensors")):
        metadata = read_metadata(path)
        classes = len(json.loads(metadata["classes"]))
        rows.append(Listed(path.stem, "bundled", path.stat().st_size / 1e6, classes, metadata.get("licence", "")))
    return rows


def load(
    name: str | Path = "default", *, device: str = "auto", precision: Literal["auto", "fp32", "bf16"] = "auto"
) -> MaskTrackRCNN:
    """A model ready to predict, by bundled name, safetensors file, or the folder of a training run.

    `precision` is that of the network's layers; "auto" is bf16 where the processor computes in it, else fp32.
    Raises WeightsError for an unknown name, a file of another kind (a pickle is refused unread) or of another model.
    """
    path, target = find(name), choose_device(device)
    config, classes = _described(path)
    tensors = read_tensors(path)
    check_fit(config, classes, tensors, str(path))
    model = config.build(classes)
    model.load_state_dict(tensors, strict=False)
    if precision == "bf16" or (precision == "auto" and computes_bf16(target)):
        model.precision = torch.bfloat16
    model.to(memory_format=torch.channels_last)
    return model.eval().to(target)


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic of its own, so that it is faster than float32 and not slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def _described(path: Path) -> tuple[ModelConfig, tuple[str, ...]]:
    metadata = read_metadata(path)
    if "config" not in metadata or "classes" not in metadata:
        raise WeightsError(
            f"{path}: expected a model saved by tubelet (config and classes in its metadata), found none"
        )
    try:
        classes = json.loads(metadata["classes"])
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise WeightsError(f"{path}: expected a list of class names in its metadata")
        return _ANY_MODEL.validate_json(metadata["config"]), tuple(classes)
    except (ValidationError, json.JSONDecodeError, RecursionError) as error:
        raise WeightsError(f"{path}: its config is not of this version: {str(error).splitlines()[0]}") from None


def find(name: str | Path) -> Path:
    """The file that a name or path stands for."""
    bundled = BUNDLED / f"{name}.safetensors"
    if re.fullmatch(r"[\w.-]+", str(name)) and bundled.is_file():
        return bundled
    path = Path(name)
    if path.is_dir() and (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    if not path.is_file():
        known = [p.stem for p in BUNDLED.glob("*.safetensors")]
        raise WeightsError(f"no model {str(name)!r}: neither a bundled name nor a file; {nearest(str(name), known)}")
    return path


def read_metadata(path: Path) -> dict[str, str]:
    """The strings beside the tensors; raises WeightsError where the file is no safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(_refusal(path, error)) from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors, in float32 where they are floating point."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(_refusal(path, error)) from None
    return {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}


def check_fit(config: ModelConfig, classes: tuple[str, ...], tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise WeightsError, which counts what is missing, unknown or of another shape, unless every tensor fits.

    Nothing is allocated: a file's config decides the sizes, and may be hostile.
    """
    try:
        with torch.device("meta"):
            own = config.build(classes).state_dict()
    except (RuntimeError, ConfigError) as error:
        raise WeightsError(f"{where}: its config cannot be built: {str(error).splitlines()[0]}") from None
    missing = sorted(own.keys() - tensors.keys() - {k for k in own if k.endswith("num_batches_tracked")})
    unknown = sorted(tensors.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape)
    if missing or unknown or shapes:
        raise WeightsError(
            f"{where}: weights of another model: {len(missing)} missing, {len(unknown)} unknown, "
            f"{len(shapes)} of another shape (first: {(missing + unknown + shapes)[0]})"
        )


def start_from(model: MaskTrackRCNN, source: str) -> list[str]:
    """Start a training from pretrained weights; returns the names of the tensors that keep their random start.

    `source` is a safetensors file (one of ours, an SSDLite detector of COCO, a torchvision Mask R-CNN or a plain
    backbone, told apart by their tensor names), or `torchvision/maskrcnn_resnet50_fpn` and
    `torchvision/maskrcnn_resnet50_fpn_v1`, which are fetched by name where there is a network.
    """
    if source.startswith("torchvision/"):
        tensors = from_torchvision(_fetch_torchvision(source), norm_eps=0.0)  # these were trained with frozen norms
    else:
        tensors = _ours(read_tensors(find(source)), model)
    own = model.state_dict()
    fitting = {k: t for k, t in tensors.items() if k in own and own[k].shape == t.shape}
    if not fitting:
        raise WeightsError(f"{source}: none of its {len(tensors)} tensors fits this model")
    model.load_state_dict(fitting, strict=False)
    return sorted(k for k in own.keys() - fitting.keys() if not k.endswith("num_batches_tracked"))


def _ours(tensors: dict[str, Tensor], model: MaskTrackRCNN) -> dict[str, Tensor]:
    if "extra.0.pw.weight" in tensors:
        return from_coco_ssdlite(tensors)
    if "roi_heads.box_head.fc6.weight" in tensors:
        return from_torchvision(tensors)
    backbone = {f"detector.backbone.body.{k}": t for k, t in tensors.items()}
    return backbone if backbone.keys() & model.state_dict().keys() else tensors


def from_coco_ssdlite(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The public COCO detector's tensors -> ours: of its 91 class scores the 80 that COCO uses stay."""
    out = {}
    for key, tensor in tensors.items():
        if re.fullmatch(r"cls\.\d+\.pw\.(weight|bias)", key):
            tensor = tensor.reshape(-1, 91, *tensor.shape[1:])[:, list(COCO_IDS)].flatten(0, 1)
        out[f"detector.{key}"] = tensor
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


def from_torchvision(tensors: dict[str, Tensor], norm_eps: float = 1e-5) -> dict[str, Tensor]:
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


def _fetch_torchvision(source: str) -> dict[str, Any]:
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    weights = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
    if source not in ("torchvision/maskrcnn_resnet50_fpn", "torchvision/maskrcnn_resnet50_fpn_v1"):
        raise WeightsError(f"unknown weights {source!r}; known: torchvision/maskrcnn_resnet50_fpn")
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except OSError as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
        raise WeightsError(
            f"{source} cannot be fetched ({error}); without a network put {cache.name} into {cache.parent}"
        ) from None


def _refusal(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return f"{path}: a pickled checkpoint is refused, because loading one can run code; expected a safetensors file"
    return f"{path}: expected a safetensors file, but {error}"
