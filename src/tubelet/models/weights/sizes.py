"""Sizes of a network, read off the shapes and names of its tensors: never larger than the file that holds them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tubelet.core.errors import WeightsError


def count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Return one more than the largest number that the pattern's group matches in the tensors' names.

    Example:
        >>> from tubelet.models.weights.sizes import count
        >>> count({"layers.0.weight": torch.zeros(1), "layers.1.weight": torch.zeros(1)}, r"layers\\.(\\d+)\\.")
        2
    """
    largest = -1
    for key in tensors:
        match = re.match(pattern, key)
        if match and len(match[1]) < 9:
            largest = max(largest, int(match[1]))
    return min(largest + 1, len(tensors))


def shape(tensors: Mapping[str, Tensor], name: str, path: Path, sides: int) -> tuple[int, ...]:
    """Return the shape of a tensor; raises WeightsError unless it is there and has so many sides, none of them 0.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.models.weights.sizes import shape
        >>> shape({"query.weight": torch.zeros(5, 8)}, "query.weight", Path("model.safetensors"), 2)
        (5, 8)
    """
    sizes = tuple(tensor(tensors, name, path).shape)
    if len(sizes) != sides or not all(sizes):
        raise WeightsError(f"{path}: expected {name} to have {sides} sides, got shape {sizes}")
    return sizes


def tensor(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    """Return a tensor by our name; raises WeightsError if the file has none.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.models.weights.sizes import tensor
        >>> tensor({}, "query.weight", Path("model.safetensors"))
        Traceback (most recent call last):
        ...
        tubelet.core.errors.WeightsError: model.safetensors: weights of another model: nothing in it is our query.weight
    """
    if name not in tensors:
        raise WeightsError(f"{path}: weights of another model: nothing in it is our {name}")
    return tensors[name]
