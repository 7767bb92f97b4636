"""Read safetensors files. Pickles are refused, because loading one can run code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import safe_open

from tubelet.core.errors import InputError, WeightsError
from tubelet.core.untrusted.files import check_file, opened

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_WEIGHTS = 1 << 40  # bytes
Result = TypeVar("Result")


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file. Raises WeightsError if it is not a valid one.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from safetensors.torch import save
        >>> from tubelet.core.untrusted.tensors import read_metadata
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "weights.safetensors")
        ...     _ = path.write_bytes(save({"w": torch.zeros(2)}, metadata={"recipe": "sta"}))
        ...     read_metadata(path)
        {'recipe': 'sta'}
    """
    return _read(path, lambda file: dict(file.metadata() or {}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file to the CPU. Raises WeightsError if it is not a valid one.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from safetensors.torch import save
        >>> from tubelet.core.untrusted.tensors import read_tensors
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "weights.safetensors")
        ...     _ = path.write_bytes(save({"w": torch.zeros(2)}))
        ...     read_tensors(path)
        {'w': tensor([0., 0.])}
    """
    return _read(path, lambda file: {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 (no mapping)


def _read(path: Path, take: Callable[[Any], Result]) -> Result:
    try:
        check_file(path, largest=LARGEST_WEIGHTS)
        with safe_open(path, "pt") as file:
            return take(file)
    except InputError as error:
        raise WeightsError(str(error)) from None
    except Exception as error:  # invalid headers make the parser raise many types of errors
        raise WeightsError(_refusal(path, error)) from None


def _refusal(path: Path, error: Exception) -> str:
    """Why the file is refused, in one line."""
    with opened(path, largest=LARGEST_WEIGHTS) as file:
        head = file.read(4)
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return f"{path}: a pickled checkpoint is refused, because loading one can run code; expected a safetensors file"
    return f"{path}: expected a safetensors file, but {error}"
