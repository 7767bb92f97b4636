"""Load models and pretrained weights: bundled with the package, from a file, or from the hub.

Files are safetensors; nothing is ever unpickled. key_maps.py renames the tensors of public models, published.py infers
the config of a published file, hub.py lists the models of the hub.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from tubelet.core.arguments import one_of, short
from tubelet.core.devices import choose_device
from tubelet.core.errors import ConfigError, FormatError, WeightsError, nearest
from tubelet.core.untrusted import tensors as stored
from tubelet.core.untrusted.documents import decode_json
from tubelet.core.untrusted.files import is_file, is_folder
from tubelet.core.untrusted.tensors import read_metadata
from tubelet.engines.choice import use_engine
from tubelet.engines.low_precision import convert_weights_once
from tubelet.models.hub_segmenter.loading import is_segmenter, load_segmenter
from tubelet.models.hub_segmenter.model import HubSegmenter, HubSegmenterConfig
from tubelet.models.mask2former.model import Mask2Former, Mask2FormerConfig
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.tags.encoder import from_torchvision_video
from tubelet.models.tags.model import TagConfig, TagModel
from tubelet.models.videomt.model import VidEoMT, VidEoMTConfig
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
from tubelet.models.weights.videomt import from_eomt, is_eomt, resized_vit

ModelConfig = Annotated[MaskTrackConfig | Mask2FormerConfig | TagConfig | VidEoMTConfig, Field(discriminator="kind")]
AnyModel = MaskTrackRCNN | Mask2Former | TagModel | VidEoMT | HubSegmenter
_ANY_MODEL: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)

BUNDLED = Path(__file__).parents[1] / "bundled"
BACKBONES = (  # prefixes of a backbone's tensors
    "detector.backbone.body.",
    "backbone.body.",
    "network.encoder.backbone.body.",
    "network.backbone.body.patch_embed.trunk.body.",  # in the small VidEoMT, whose patches are of a trunk's maps
    "network.backbone.body.",
)
ENCODER = "network.encoder."  # prefix of the trunk of a tag model
SSDLITE = "detector.body."  # prefix of the trunk of an SSDLite detector
IN_FOLDER = ("best.safetensors", "model.safetensors")  # what a folder stands for, the first that is there
FORMAT = "1"  # of the metadata of our files: tubelet, config, classes


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that can be loaded by name, as `tubelet list models` shows it."""

    name: str
    where: str
    megabytes: float
    classes: int
    licence: str
    published: str = ""  # the published figure
    commercial: bool = True  # whether the licence allows commercial use
    cpu: bool = True  # whether it is of any use without a GPU


def list_models() -> list[ListedModel]:
    """List the bundled models, then those of the hub.

    Example:
        >>> from tubelet.models.weights import list_models
        >>> model = list_models()[0]
        >>> model.name, model.where, model.classes
        ('default', 'bundled', 80)
    """
    return [*_bundled(), *(_listed(model) for model in hub.PUBLISHED)]


def _listed(model: hub.Published) -> ListedModel:
    where = "hub" if model.revision else "hub, a pickle to convert"
    figure = f"{model.ap:.1f} AP, {model.measured_on}"
    return ListedModel(
        model.name,
        where,
        model.megabytes,
        model.classes,
        model.licence,
        figure,
        model.commercial,
        model.cpu,
    )


def _bundled() -> list[ListedModel]:
    models = []
    for path in sorted(BUNDLED.glob("*.safetensors")):
        metadata = read_metadata(path)
        classes = len(decode_json(metadata["classes"], str(path)))
        megabytes = path.stat().st_size / 1e6
        licence = metadata.get("licence", "")
        models.append(ListedModel(path.stem, "bundled", megabytes, classes, licence))
    return models


def load(
    name: str | Path = "default",
    *,
    device: str | torch.device = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    engine: str = "auto",
    input_size: int | None = None,
) -> AnyModel:
    """Load a model that is ready to predict.

    Args:
        name: A bundled model, a model of the hub, a safetensors file, or a folder with
            model.safetensors (of a training run or a published model).
        device: "auto", or a torch device.
        precision: Of the network's layers; "auto" is bf16 if the processor computes in it, else fp32.
        engine: What computes the network in `predict` and `stream`: "torch", "onnx" (ONNX Runtime,
            always fp32), "openvino", or "auto", the fastest that is installed and agrees with torch
            (docs/engines.md).
        input_size: The detector of `default`, and of models trained from it, reads every frame at the
            area of `input_size` x `input_size` pixels, 64 to 8192: more finds smaller objects, and takes
            longer. None: the model's own, 416.

    Raises:
        ConfigError: if another size is given to a model whose input has a size of its own.
        EngineError: if the engine is not installed or cannot run this model.
        WeightsError: if the name is unknown, or the file is no safetensors file (a pickle is never
            read) or belongs to another model.

    Example:
        >>> from tubelet.models import weights
        >>> model = weights.load("default", device="cpu")
        >>> len(model.classes), model.training
        (80, False)
    """
    one_of("precision", precision, ("auto", "fp32", "bf16"))
    target = choose_device(device)
    path = find(name)
    model = load_segmenter(path.parent) if is_segmenter(path) else _built(path)
    if input_size is not None:
        model = _resized(model, input_size, str(name))
    ready_to_predict(model, target, precision)
    use_engine(model.graphs(), engine, model.precision, target)
    if isinstance(model, MaskTrackRCNN) and model.precision == torch.bfloat16:
        convert_weights_once(model.graphs())
    return model.to(target)


def _built(path: Path) -> AnyModel:
    """A model of our own from its file."""
    config, classes, tensors = _open(path)
    check_fit(config, classes, tensors, str(path))
    model = config.build(classes)
    model.load_state_dict(tensors, strict=False)
    return model


def _resized(model: AnyModel, size: int, name: str) -> AnyModel:
    """The same model with an input of the area of `size` x `size` pixels."""
    if not isinstance(model, MaskTrackRCNN) or model.config.detector.input.resize.kind != "keep_area":
        raise ConfigError(
            f"input_size={size}: {name} reads frames at a size of its own; `default` can be given another"
        )
    if not 64 <= size <= 8192:
        raise ConfigError(f"input_size={size}: expected 64 to 8192 pixels")

    config = model.config.override(f"detector.input.resize.area={size * size}")
    resized = config.build(model.classes)
    resized.load_state_dict(model.state_dict())
    return resized


def ready_to_predict(
    model: nn.Module, device: torch.device, precision: Literal["auto", "fp32", "bf16"] = "auto"
) -> None:
    """Set the evaluation mode, precision and memory layout that `load` gives a model on this device."""
    wants_bf16 = precision == "bf16" or (precision == "auto" and computes_bf16(device))
    if wants_bf16 and isinstance(model, AnyModel):
        model.precision = torch.bfloat16
    if not isinstance(model, TagModel):  # its 3-D convolutions choose their own memory format
        model.to(memory_format=torch.channels_last)
    model.eval()


def _open(path: Path) -> tuple[ModelConfig, tuple[str, ...], dict[str, Tensor]]:
    """Read a file: the model's config, its classes, and its tensors by our names."""
    metadata = read_metadata(path)
    if "config" in metadata and "classes" in metadata:
        return *_config_of(path, metadata), read_tensors(path)

    published = describe(path, read_tensors(path), metadata)
    if published is None:
        expected = "expected a model saved by tubelet (config and classes in its metadata)"
        raise WeightsError(f"{path}: {expected} or a published Mask2Former or VidEoMT, found neither")
    return published


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic; emulated, it would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def _config_of(path: Path, metadata: Mapping[str, str]) -> tuple[ModelConfig, tuple[str, ...]]:
    try:
        classes = decode_json(metadata["classes"], str(path))
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise WeightsError(f"{path}: expected a list of class names in its metadata")
        config = _ANY_MODEL.validate_python(decode_json(metadata["config"], str(path)))
        return config, tuple(classes)
    except (ValidationError, FormatError) as error:
        raise WeightsError(f"{path}: its config is not of this version: {str(error).splitlines()[0]}") from None


def find(name: str | Path) -> Path:
    """Return the safetensors file of a name or path; files on disk come before names of the hub.

    A training's folder stands for its best weights if it validated, else for its last.

    Raises WeightsError if there is none.

    Example:
        >>> from tubelet.models import weights
        >>> weights.find("default").name
        'default.safetensors'
    """
    if not isinstance(name, str | Path):
        raise WeightsError(f"expected a model's name or a path, got {short(name)}")
    bundled = BUNDLED / f"{name}.safetensors"
    if re.fullmatch(r"[\w.-]+", str(name)) and is_file(bundled):
        return bundled

    path = Path(name)
    if is_file(path):
        return path
    if is_folder(path):
        for weights in IN_FOLDER:
            if (path / weights).is_file():
                return path / weights
        for pickle in (path / "pytorch_model.bin", path / "model.pkl"):
            if pickle.is_file():
                raise WeightsError(f"{pickle} is a pickle, which is never read: {hub.CONVERTING}")

        if (path / "checkpoints").is_dir():
            raise WeightsError(
                f"{path}: this training has no model yet; the same command with --resume goes on with it"
            )

    if hub.listed(str(name)) is not None:
        return hub.fetch(str(name))
    shown = short(str(name)) if len(str(name)) > 200 else repr(str(name))
    known = [*(p.stem for p in BUNDLED.glob("*.safetensors")), *hub.names()]
    raise WeightsError(f"no model {shown}: neither a bundled name nor a file; {nearest(str(name), known)}")


def recipe_of(path: Path) -> str | None:
    """The recipe that a model's file says it was trained with; None if it does not say."""
    name = decode_json(read_metadata(path).get("recipe_name", "null"), str(path))
    return name if isinstance(name, str) else None


def weights_of_training(path: Path) -> str | None:
    """Which weights of a training a file has, such as "best, step 500"; None if it does not say.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.models.weights.loading import weights_of_training
        >>> from tubelet.training.checkpoint import save_model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "model.safetensors")
        ...     save_model(path, {"weight": torch.zeros(1)}, {"step": "1200"})
        ...     weights_of_training(path)
        'last, step 1200'
    """
    metadata = read_metadata(path)
    validation = decode_json(metadata.get("validation", "null"), str(path))
    if isinstance(validation, dict) and isinstance(validation.get("step"), int):
        return f"best, step {validation['step']}"
    step = decode_json(metadata.get("step", "null"), str(path))
    return f"last, step {step}" if isinstance(step, int) else None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file; floating point ones become float32.

    Raises WeightsError if a tensor has values that are not a number, as trainings that diverge leave them.
    """
    tensors = stored.read_tensors(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise WeightsError(f"{path}: {name} has values that are not a number; did its training diverge?")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def check_fit(config: ModelConfig, classes: tuple[str, ...], tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise WeightsError unless all tensors fit the model; the message counts those that do not.

    The model is built on the meta device, and only as large as the file: its config may be hostile.
    `where` names the file in messages.
    """
    try:
        with torch.device("meta"), _Unfilled(), _at_most(2 * len(tensors) + 100):
            expected = config.build(classes).state_dict()
    except (RuntimeError, ConfigError, ValueError) as error:
        raise WeightsError(f"{where}: its config cannot be built: {str(error).splitlines()[0]}") from None

    counters = {name for name in expected if name.endswith("num_batches_tracked")}  # a file may leave them out
    missing = sorted(expected.keys() - tensors.keys() - counters)
    unknown = sorted(tensors.keys() - expected.keys())
    common = expected.keys() & tensors.keys()
    shapes = sorted(name for name in common if expected[name].shape != tensors[name].shape)
    if missing or unknown or shapes:
        raise WeightsError(
            f"{where}: weights of another model: {len(missing)} missing, {len(unknown)} unknown, "
            f"{len(shapes)} of another shape ({_first(missing + unknown + shapes)})"
        )


def _first(names: list[str], shown: int = 3) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


class _Unfilled(TorchFunctionMode):
    """Leaves new tensors unfilled: on the meta device they hold nothing, but random numbers there need the compiler."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init" or function in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else named["tensor"]
        return function(*args, **named)


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
        tensors = _renamed(_fetch_torchvision(source), model)
    else:
        tensors = _renamed(read_tensors(find(source)), model)

    tensors = _resized_positions(_trunks(tensors) | tensors, target)
    if isinstance(model, AnyModel) and not source.startswith("torchvision/"):
        tensors = _for_classes(tensors, target, model, _classes_of(find(source)))
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
        >>> from tubelet.models.weights.loading import is_backbone
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
    with torch.device("meta"), _Unfilled():
        wider = config.build((*model.classes, "one more")).state_dict()
    return {key for key, tensor in target.items() if wider[key].shape != tensor.shape}


def _classes_of(path: Path) -> list[str]:
    """The names of the classes that a model's file has; none where it does not say."""
    names = decode_json(read_metadata(path).get("classes", "[]"), str(path))
    return [str(name) for name in names] if isinstance(names, list) else []


def _trunks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of an SSDLite detector's trunk, for backbones and for mask heads on crops (rcnn/heads/crops.py)."""
    copies = {}
    for key, tensor in tensors.items():
        if key.startswith(SSDLITE):
            for prefix in ("mask.encoder.", *BACKBONES):
                copies[key.replace(SSDLITE, prefix, 1)] = tensor
    return copies


def _fetch_torchvision(source: str) -> dict[str, Any]:
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
