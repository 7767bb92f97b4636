"""Load an image segmenter from a folder of transformers' files.

They are config.json, model.safetensors and preprocessor_config.json. Nothing is fetched and nothing is unpickled:
transformers reads the folder alone, and safetensors alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tubelet.core.errors import FormatError, InputError, WeightsError
from tubelet.core.untrusted.documents import read_json
from tubelet.core.untrusted.tensors import read_tensors
from tubelet.models.hub_segmenter.answers import FAMILIES
from tubelet.models.hub_segmenter.model import HubSegmenter, HubSegmenterConfig
from tubelet.models.hub_segmenter.pictures import read_pictures

LARGEST = 10_000_000  # bytes of a config.json
NEEDED = "reading it needs transformers (pip install tubelet[hub])"
OURS = "mask2former"  # which tubelet builds itself (models/mask2former)


def is_segmenter(path: Path) -> bool:
    """Whether the config.json beside a file is of an image segmenter that only transformers can build.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.models.hub_segmenter.loading import is_segmenter
        >>> is_segmenter(Path("nowhere/model.safetensors"))
        False
    """
    config = path.parent / "config.json"
    if not config.is_file():
        return False
    try:
        description = read_json(config, largest=LARGEST)
    except (InputError, FormatError):  # who reads it in full says what is wrong with it
        return False
    kind = _model_type(description)
    return kind in FAMILIES and kind != OURS


def load_segmenter(folder: Path, config: HubSegmenterConfig | None = None) -> HubSegmenter:
    """Load RF-DETR-Seg, EoMT or Mask2Former of images with our memory, on the CPU.

    Raises WeightsError if the folder lacks a file, if transformers is missing or too old, or if the tensors are not
    those of its config.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.models.hub_segmenter.loading import load_segmenter
        >>> load_segmenter(Path("nowhere"))
        Traceback (most recent call last):
        ...
        tubelet.core.errors.WeightsError: nowhere: expected config.json, model.safetensors and preprocessor_config.json
    """
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise WeightsError(f"{folder}: expected config.json, model.safetensors and preprocessor_config.json")
    try:
        description = read_json(folder / "config.json", largest=LARGEST)
    except (InputError, FormatError) as error:
        raise WeightsError(str(error)) from None

    kind = _model_type(description)
    if kind not in FAMILIES:
        raise WeightsError(f"{folder}: expected a model_type of {', '.join(FAMILIES)}, got {kind[:40]!r}")
    family = FAMILIES[kind]
    pictures = read_pictures(folder)
    columns, classes = _classes(description, folder)
    try:
        network_class = family.network_class()
    except ImportError:
        raise WeightsError(f"{folder}: {NEEDED}, one that has {type(family).__name__}") from None

    network = _read_network(network_class, folder)
    return HubSegmenter(network, family, pictures, classes, columns, config or HubSegmenterConfig()).eval()


def _model_type(description: Any) -> str:
    """The model_type of a config.json, whatever that file holds."""
    return str(description.get("model_type")) if isinstance(description, dict) else "nothing"


def _classes(description: Mapping[str, Any], folder: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Columns of the class scores and their names; a list may leave numbers out, as COCO's does."""
    names = description.get("id2label")
    is_list = isinstance(names, dict) and all(
        isinstance(number, str) and number.isascii() and number.isdigit() and len(number) < 6 and isinstance(name, str)
        for number, name in names.items()
    )
    if not is_list or not names:
        raise WeightsError(f"{folder / 'config.json'}: expected id2label, the names of the classes")
    columns = sorted(int(number) for number in names)
    return tuple(columns), tuple(names[str(column)] for column in columns)


def _read_network(network_class: Any, folder: Path) -> nn.Module:
    tensors = read_tensors(folder / "model.safetensors")
    try:
        settings = network_class.config_class.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):  # before anything is allocated: its config may be hostile
            wanted = sum(tensor.numel() for tensor in network_class(settings).state_dict().values())
        held = sum(tensor.numel() for tensor in tensors.values())
        if wanted > 2 * held + 10_000:
            raise WeightsError(f"{folder}: its config asks for {wanted} numbers, the file has {held}")
        with _quiet():
            network, info = network_class.from_pretrained(
                folder, config=settings, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
    except WeightsError:
        raise
    except Exception as error:  # whatever transformers raises for files that do not fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise WeightsError(f"{folder}: transformers cannot read it: {reason}") from None

    missing = sorted(info["missing_keys"])
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise WeightsError(f"{folder}: {len(missing)} tensors are missing: {', '.join(missing[:3])}{more}")
    loaded: nn.Module = network
    return loaded


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and reports."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
