"""What a model's file holds: its tensors, and what its metadata says of config, classes and training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from tubelet.core.errors import FormatError, WeightsError
from tubelet.core.untrusted import tensors as stored
from tubelet.core.untrusted.documents import decode_json
from tubelet.core.untrusted.tensors import read_metadata
from tubelet.models.weights.families import ModelConfig

FORMAT = "1"  # of the metadata of our files: tubelet, config, classes
_ANY_MODEL: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file; floating point ones become float32.

    Raises WeightsError if a tensor has values that are not a number, as trainings that diverge leave them.
    """
    tensors = stored.read_tensors(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise WeightsError(f"{path}: {name} has values that are not a number; did its training diverge?")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def config_of(path: Path, metadata: Mapping[str, str]) -> tuple[ModelConfig, tuple[str, ...]]:
    try:
        classes = decode_json(metadata["classes"], str(path))
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise WeightsError(f"{path}: expected a list of class names in its metadata")
        config = _ANY_MODEL.validate_python(decode_json(metadata["config"], str(path)))
        return config, tuple(classes)
    except (ValidationError, FormatError) as error:
        raise WeightsError(f"{path}: its config is not of this version: {str(error).splitlines()[0]}") from None


def classes_of(path: Path) -> list[str]:
    """The names of the classes that a model's file has; none where it does not say."""
    names = decode_json(read_metadata(path).get("classes", "[]"), str(path))
    return [str(name) for name in names] if isinstance(names, list) else []


def recipe_of(path: Path) -> str | None:
    """The recipe that a model's file says it was trained with; None if it does not say."""
    name = decode_json(read_metadata(path).get("recipe_name", "null"), str(path))
    return name if isinstance(name, str) else None


def weights_of_training(path: Path) -> str | None:
    """Which weights of a training a file has, such as "best, step 500"; None if it does not say.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.models.weights.contents import weights_of_training
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
