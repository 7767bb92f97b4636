"""Where weights come from: bundled with the package, a file, the hub, or a public model's layout mapped onto ours.

Files are safetensors; nothing is ever unpickled. Which of their names is which of ours: key_maps.py. What a published
file says of its model: published.py. What the hub has: hub.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from tubelet.core.arguments import one_of, short
from tubelet.core.devices import choose_device
from tubelet.core.errors import ConfigError, FormatError, WeightsError, nearest
from tubelet.core.untrusted import tensors as stored
from tubelet.core.untrusted.documents import decode_json
from tubelet.core.untrusted.files import is_file, is_folder
from tubelet.core.untrusted.tensors import read_metadata
from tubelet.models.mask2former.model import Mask2Former, Mask2FormerConfig
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.tags.encoder import from_torchvision_video
from tubelet.models.tags.model import TagConfig, TagModel
from tubelet.models.weights import hub
from tubelet.models.weights.key_maps import (
    from_coco_ssdlite,
    from_detectron2,
    from_nanodet_plus,
    from_torchvision,
    from_transformers,
    is_detectron2,
    is_transformers,
)
from tubelet.models.weights.published import describe

ModelConfig = Annotated[MaskTrackConfig | Mask2FormerConfig | TagConfig, Field(discriminator="kind")]
AnyModel = MaskTrackRCNN | Mask2Former | TagModel
_ANY_MODEL: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)

BUNDLED = Path(__file__).parents[1] / "bundled"
BACKBONES = ("detector.backbone.body.", "backbone.body.")  # where models keep a backbone's tensors
SSDLITE = "detector.body."  # where an SSDLite detector keeps its trunk's
FORMAT = "1"  # of the metadata beside the tensors: tubelet, config, classes


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that can be named: what `tubelet list models` shows."""

    name: str
    where: str
    megabytes: float
    classes: int
    licence: str
    published: str = ""  # the published figure


def list_models() -> list[ListedModel]:
    """The bundled models, then those of the hub."""
    return [*_bundled(), *(_listed(model) for model in hub.PUBLISHED)]


def _listed(model: hub.Published) -> ListedModel:
    where = "hub" if model.revision else "hub, a pickle to convert"
    figure = f"{model.ap:.1f} AP, {model.measured_on}"
    return ListedModel(model.name, where, model.megabytes, model.classes, model.licence, figure)


def _bundled() -> list[ListedModel]:
    rows = []
    for path in sorted(BUNDLED.glob("*.safetensors")):
        metadata = read_metadata(path)
        classes = len(decode_json(metadata["classes"], str(path)))
        rows.append(ListedModel(path.stem, "bundled", path.stat().st_size / 1e6, classes, metadata.get("licence", "")))
    return rows


def load(
    name: str | Path = "default",
    *,
    device: str | torch.device = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
) -> AnyModel:
    """A model ready to predict: a bundled name, one of the hub, a safetensors file, or the folder of a training run or
    of a published model (model.safetensors, and config.json where it is transformers').

    `precision` is that of the network's layers; "auto" is bf16 where the processor computes in it, else fp32.
    Raises WeightsError for an unknown name, a file of another kind (a pickle is refused unread) or of another model.
    """
    one_of("precision", precision, ("auto", "fp32", "bf16"))
    target = choose_device(device)
    path = find(name)
    config, classes, tensors = _open(path)
    check_fit(config, classes, tensors, str(path))
    model = config.build(classes)
    model.load_state_dict(tensors, strict=False)
    if precision == "bf16" or (precision == "auto" and computes_bf16(target)):
        model.precision = torch.bfloat16
    if not isinstance(model, TagModel):  # whose convolutions have three dimensions, and choose for themselves
        model.to(memory_format=torch.channels_last)
    return model.eval().to(target)


def _open(path: Path) -> tuple[ModelConfig, tuple[str, ...], dict[str, Tensor]]:
    """The model of a file, its classes, and its tensors by our names."""
    metadata = read_metadata(path)
    if "config" in metadata and "classes" in metadata:
        return *_described(path, metadata), read_tensors(path)
    published = describe(path, read_tensors(path), metadata)
    if published is None:
        expected = "expected a model saved by tubelet (config and classes in its metadata) or a published Mask2Former"
        raise WeightsError(f"{path}: {expected}, found neither")
    return published


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic of its own, so that it is faster than float32 and not slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def _described(path: Path, metadata: Mapping[str, str]) -> tuple[ModelConfig, tuple[str, ...]]:
    try:
        classes = decode_json(metadata["classes"], str(path))
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise WeightsError(f"{path}: expected a list of class names in its metadata")
        return _ANY_MODEL.validate_python(decode_json(metadata["config"], str(path))), tuple(classes)
    except (ValidationError, FormatError) as error:
        raise WeightsError(f"{path}: its config is not of this version: {str(error).splitlines()[0]}") from None


def find(name: str | Path) -> Path:
    """The file that a name or path stands for; what is on disk goes before a name of the hub."""
    if not isinstance(name, str | Path):
        raise WeightsError(f"expected a model's name or a path, got {short(name)}")
    bundled = BUNDLED / f"{name}.safetensors"
    if re.fullmatch(r"[\w.-]+", str(name)) and is_file(bundled):
        return bundled
    path = Path(name)
    if is_file(path):
        return path
    if is_folder(path) and (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    if is_folder(path) and (pickles := [p for p in ("pytorch_model.bin", "model.pkl") if (path / p).is_file()]):
        raise WeightsError(f"{path / pickles[0]} is a pickle, which is never read: {hub.CONVERTING}")
    if str(name) in hub.names():
        return hub.fetch(str(name))
    shown = short(str(name)) if len(str(name)) > 200 else repr(str(name))
    known = [*(p.stem for p in BUNDLED.glob("*.safetensors")), *hub.names()]
    raise WeightsError(f"no model {shown}: neither a bundled name nor a file; {nearest(str(name), known)}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors, in float32 where they are floating point."""
    return {k: t.float() if t.is_floating_point() else t for k, t in stored.read_tensors(path).items()}


def check_fit(config: ModelConfig, classes: tuple[str, ...], tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise WeightsError, which counts what is missing, unknown or of another shape, unless every tensor fits.

    Nothing is allocated, and no more is built than the file has: its config decides the sizes, and may be hostile.
    """
    try:
        with torch.device("meta"), _at_most(2 * len(tensors) + 100):
            own = config.build(classes).state_dict()
    except (RuntimeError, ConfigError, ValueError) as error:
        raise WeightsError(f"{where}: its config cannot be built: {str(error).splitlines()[0]}") from None
    missing = sorted(own.keys() - tensors.keys() - {k for k in own if k.endswith("num_batches_tracked")})
    unknown = sorted(tensors.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape)
    if missing or unknown or shapes:
        raise WeightsError(
            f"{where}: weights of another model: {len(missing)} missing, {len(unknown)} unknown, "
            f"{len(shapes)} of another shape (first: {(missing + unknown + shapes)[0]})"
        )


@contextmanager
def _at_most(parameters: int) -> Iterator[None]:
    """Stop building a model that has more parameters than this: a hostile config may ask for a billion layers."""
    count = 0

    def limit(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += 1
        if count > parameters:
            raise ConfigError("it asks for more tensors than the file has")

    handle = register_module_parameter_registration_hook(limit)
    try:
        yield
    finally:
        handle.remove()


def start_from(model: nn.Module, source: str) -> list[str]:
    """Start a training from pretrained weights; returns the names of the tensors that keep their random start.

    `source` is what `load` takes, or a safetensors file of an SSDLite detector of COCO, a torchvision Mask R-CNN, a
    published Mask2Former, torchvision's R(2+1)D or a plain backbone, told apart by their tensor names;
    `torchvision/maskrcnn_resnet50_fpn` and `torchvision/r2plus1d_18` are fetched by name where there is a network.
    """
    if source.startswith("torchvision/"):
        tensors = _fetch_torchvision(source)
    else:
        tensors = _ours(read_tensors(find(source)), model)
    own = model.state_dict()
    tensors = _stretched(_trunks(tensors) | tensors, own)
    fitting = {k: t for k, t in tensors.items() if k in own and own[k].shape == t.shape}
    if not fitting:
        raise WeightsError(f"{source}: none of its {len(tensors)} tensors fits this model")
    model.load_state_dict(fitting, strict=False)
    return sorted(k for k in own.keys() - fitting.keys() if not k.endswith("num_batches_tracked"))


def _ours(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
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
    own = model.state_dict().keys()
    for place in BACKBONES:
        # timm numbers Swin's stages as a list where the network is whole
        backbone = {place + re.sub(r"^layers\.(\d)\.", r"layers_\1.", k): t for k, t in tensors.items()}
        if backbone.keys() & own:
            return backbone
    return tensors


def _stretched(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a mask head learned of places in its crops (rcnn/crops.py), for crops of another size."""
    learned, wanted = (held.get("mask.position") for held in (tensors, own))
    if learned is None or wanted is None or learned.ndim != 4 or learned.shape[:2] != wanted.shape[:2]:
        return tensors
    size = wanted.shape[-2:]
    return tensors | {"mask.position": F.interpolate(learned, size, mode="bilinear", align_corners=False)}


def _trunks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An SSDLite detector's trunk, also where another model has such a trunk: a backbone, or the mask head that looks
    at crops (rcnn/crops.py)."""
    places = ("mask.encoder.", *BACKBONES)
    return {
        key.replace(SSDLITE, place, 1): tensor
        for key, tensor in tensors.items()
        for place in places
        if key.startswith(SSDLITE)
    }


def _fetch_torchvision(source: str) -> dict[str, Any]:
    """Tensors of torchvision's own files by name, in our names."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
    from torchvision.models.video import R2Plus1D_18_Weights

    masks, kinetics = MaskRCNN_ResNet50_FPN_Weights.COCO_V1, R2Plus1D_18_Weights.KINETICS400_V1
    known = {"maskrcnn_resnet50_fpn": masks, "maskrcnn_resnet50_fpn_v1": masks, "r2plus1d_18": kinetics}
    name = source.removeprefix("torchvision/")
    if name not in known:
        raise WeightsError(f"unknown weights {source!r}; {nearest(source, [f'torchvision/{one}' for one in known])}")
    weights = known[name]
    try:
        tensors = dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except OSError as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
        raise WeightsError(
            f"{source} cannot be fetched ({error}); without a network put {cache.name} into {cache.parent}"
        ) from None
    if weights is kinetics:
        return from_torchvision_video(tensors)
    return from_torchvision(tensors, norm_eps=0.0)  # these were trained with frozen norms
