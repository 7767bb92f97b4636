"""`tubelet export`: write a model's network as a file for other programs."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tubelet.apps.console import show
from tubelet.apps.option_texts import MODEL_HELP


class Format(StrEnum):
    """File formats of an exported network."""

    torch = "torch"
    onnx = "onnx"


SUFFIXES = {".pt2": Format.torch, ".onnx": Format.onnx}


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Ends in .pt2 or .onnx.")],
    format: Annotated[
        Format | None, typer.Option(help="torch.export or ONNX.", show_default="by the ending of FILE")
    ] = None,
    size: Annotated[str, typer.Option(metavar="HxW", help="Height and width of the frames.")] = "360x640",
    frames: Annotated[int, typer.Option(min=1, metavar="N", help="Frames of a clip, for models that take one.")] = 4,
) -> None:
    """Write a model's network, without association and memory, for programs without tubelet."""
    from tubelet.core.atomic import check_file
    from tubelet.core.errors import ConfigError
    from tubelet.export.network import exportable, write_onnx, write_torch
    from tubelet.models import weights

    kind = format or SUFFIXES.get(out.suffix.lower())
    if kind is None:
        raise ConfigError(f"{out}: expected a name that ends in .pt2 or .onnx, or --format")
    check_file(out)
    what = exportable(weights.load(model, device="cpu", precision="fp32"), parsed(size), frames)
    if kind is Format.onnx:
        differs = write_onnx(what, out)
        show(f"ONNX Runtime agrees with PyTorch to {differs:.1g}")
    else:
        write_torch(what, out)
    show(f"input   float32 RGB 0..255, {_shape(what.example.shape)}", f"outputs {', '.join(what.outputs)}")
    show(f"holds   {what.holds}; no association, no memory", str(out))


def parsed(size: str) -> tuple[int, int]:
    """Read a size such as `360x640` as (height, width); raises ConfigError for anything else.

    Example:
        >>> from tubelet.apps.export import parsed
        >>> parsed("360x640")
        (360, 640)
    """
    from tubelet.core.errors import ConfigError

    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if match is None:
        raise ConfigError(f"--size: expected HEIGHTxWIDTH, such as 360x640, got {size!r}")
    return int(match[1]), int(match[2])


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
