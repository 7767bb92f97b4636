"""Load a model that is ready to predict: bundled with the package, from a file, or from the hub.

Files are safetensors; nothing is ever unpickled. finding.py says which file a name stands for, contents.py reads it,
published.py infers the config of a published one, and fitting.py checks that the two belong together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from tubelet.core.arguments import one_of
from tubelet.core.devices import choose_device
from tubelet.core.errors import ConfigError, WeightsError
from tubelet.core.untrusted.tensors import read_metadata
from tubelet.engines.choice import use_engine
from tubelet.engines.low_precision import convert_weights_once
from tubelet.models.hub_segmenter.loading import is_segmenter, load_segmenter
from tubelet.models.rcnn.model import MaskTrackRCNN
from tubelet.models.tags.model import TagModel
from tubelet.models.weights.contents import config_of, read_tensors
from tubelet.models.weights.families import AnyModel, ModelConfig
from tubelet.models.weights.finding import find
from tubelet.models.weights.fitting import check_fit
from tubelet.models.weights.published import describe


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
        return *config_of(path, metadata), read_tensors(path)

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
