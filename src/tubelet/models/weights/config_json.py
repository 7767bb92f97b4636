"""transformers' config.json beside a file of weights: class names, heads, and what kind of model it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tubelet.core.errors import FormatError, InputError, WeightsError
from tubelet.core.untrusted.documents import read_json

LARGEST = 10_000_000  # bytes; 1,000 classes need 100,000

Description = Mapping[str, Any]


def beside(path: Path) -> Path:
    """The config.json of a file of weights.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.models.weights.config_json import beside
        >>> beside(Path("mask2former/model.safetensors")).as_posix()
        'mask2former/config.json'
    """
    return path.parent / "config.json"


def read_config(path: Path, kind: str) -> Description:
    """Read the config.json beside the weights; raises WeightsError unless its model_type has `kind` in it.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.models.weights.config_json import read_config
        >>> read_config(Path("nowhere/model.safetensors"), "videomt")
        Traceback (most recent call last):
        ...
        tubelet.core.errors.WeightsError: nowhere/model.safetensors: expected transformers' config.json beside it, ...
    """
    if not beside(path).is_file():
        raise WeightsError(f"{path}: expected transformers' config.json beside it, which has the names of the classes")
    try:
        description = read_json(beside(path), largest=LARGEST)
    except (InputError, FormatError) as error:
        raise WeightsError(str(error)) from None

    found = description.get("model_type") if isinstance(description, dict) else type(description).__name__
    if not isinstance(description, dict) or kind not in str(found):
        raise WeightsError(f"{beside(path)}: expected the config of a {kind}, got {str(found)[:40]!r}")
    return description


def whole_number(description: Description, field: str, default: int, path: Path, most: int = 1024) -> int:
    """Return a field that counts from 1 to `most`.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.models.weights.config_json import whole_number
        >>> whole_number({"num_attention_heads": 6}, "num_attention_heads", 8, Path("model.safetensors"))
        6
    """
    number = description.get(field, default)
    if not isinstance(number, int) or not 1 <= number <= most:
        raise WeightsError(f"{beside(path)}: expected {field} from 1 to {most}, got {number!r}")
    return number


def class_names(description: Description, path: Path) -> tuple[str, ...]:
    """Return the class names, in the order of their ids.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.models.weights.config_json import class_names
        >>> class_names({"id2label": {"1": "cat", "0": "dog"}}, Path("model.safetensors"))
        ('dog', 'cat')
    """
    names = description.get("id2label")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise WeightsError(f"{beside(path)}: expected id2label, the names of the classes")

    ids = [str(n) for n in range(len(names))]
    if set(names) != set(ids):
        raise WeightsError(f"{beside(path)}: expected id2label to count its {len(names)} classes from 0")
    return tuple(names[id] for id in ids)
