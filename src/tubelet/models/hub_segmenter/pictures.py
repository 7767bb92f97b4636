"""How a checkpoint wants its pictures: the sizes and statistics of its preprocessor_config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torchvision.transforms.v2 import functional as TV

from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, FormatError, InputError, WeightsError
from tubelet.core.untrusted.documents import read_json

PICTURES = "preprocessor_config.json"
LARGEST = 1_000_000  # bytes
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Statistics = tuple[float, float, float]


class PictureConfig(Config):
    """Resizing and normalisation as a processor of transformers does them.

    Example:
        >>> from tubelet.models.hub_segmenter.pictures import PictureConfig
        >>> PictureConfig(short=640, long=640).target(1080, 1920)
        (360, 640)
        >>> PictureConfig(exact=(384, 384)).target(1080, 1920)
        (384, 384)
    """

    exact: tuple[int, int] | None = None  # height and width that every frame is stretched to
    short: int = Field(default=800, ge=32, le=8192)  # else: of the short side, at most
    long: int = Field(default=1333, ge=32, le=8192)  # and of the long side
    divisor: int = Field(default=1, ge=1, le=256)  # sides are stretched up to a multiple of this
    antialias: bool = True
    square: bool = False  # pad to `long` x `long` at the right and the bottom
    mean: Statistics = IMAGENET_MEAN  # of pixels from 0 to 1
    std: Statistics = IMAGENET_STD

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that a frame of this size is resized to."""
        if self.exact is not None:
            return self.exact
        scale = min(self.short / min(height, width), self.long / max(height, width))
        rows, columns = (
            math.ceil(max(round(side * scale), 1) / self.divisor) * self.divisor for side in (height, width)
        )
        return rows, columns

    def prepare(self, frames: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Resize, normalise and pad frames, uint8 [B, 3, H, W].

        Returns:
            The network's input, and the height and width of the frame in it.

        Example:
            >>> from tubelet.models.hub_segmenter.pictures import PictureConfig
            >>> config = PictureConfig(short=64, long=64, square=True)
            >>> pixels, size = config.prepare(torch.zeros(2, 3, 90, 160, dtype=torch.uint8))
            >>> pixels.shape, size
            (torch.Size([2, 3, 64, 64]), (36, 64))
        """
        rows, columns = self.target(frames.shape[-2], frames.shape[-1])
        if self.antialias:
            resized = TV.resize(frames, [rows, columns], antialias=True).float()
        else:
            resized = F.interpolate(frames.float(), (rows, columns), mode="bilinear", align_corners=False)
        if self.square:  # with black, which is then normalised too
            resized = F.pad(resized, (0, self.long - columns, 0, self.long - rows))

        mean = resized.new_tensor(self.mean).view(3, 1, 1)
        std = resized.new_tensor(self.std).view(3, 1, 1)
        return (resized / 255 - mean) / std, (rows, columns)


def read_pictures(folder: Path) -> PictureConfig:
    """Read the processor's settings in a model's folder; raises WeightsError if they are missing or make no sense.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.models.hub_segmenter.pictures import read_pictures
        >>> read_pictures(Path("nowhere"))
        Traceback (most recent call last):
        ...
        tubelet.core.errors.WeightsError: nowhere: expected preprocessor_config.json, which says how ...
    """
    path = folder / PICTURES
    if not path.is_file():
        raise WeightsError(f"{folder}: expected {PICTURES}, which says how pictures are resized")
    try:
        settings = read_json(path, largest=LARGEST)
        if not isinstance(settings, dict):
            raise FormatError(f"expected an object, got {type(settings).__name__}")
        return PictureConfig.from_tree(_fields(settings))
    except (ConfigError, FormatError, InputError) as error:
        raise WeightsError(f"{path}: {error}") from None


def _fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "mean": settings.get("image_mean") or IMAGENET_MEAN,
        "std": settings.get("image_std") or IMAGENET_STD,
    }
    if settings.get("do_split_image"):
        raise FormatError("expected whole pictures, got do_split_image, of a semantic segmenter")

    size = settings.get("size")
    if not isinstance(size, dict):
        raise FormatError(f"expected a size in words, such as {{'height': 384, 'width': 384}}, got {str(size)[:60]}")
    processor = str(settings.get("image_processor_type"))
    fields["antialias"] = "RfDetr" not in processor
    if "height" in size and "width" in size:
        return fields | {"exact": (size["height"], size["width"])}

    short = size.get("shortest_edge")
    fields |= {"short": short, "long": size.get("longest_edge") or short, "divisor": settings.get("size_divisor") or 1}
    return fields | {"square": bool(settings.get("do_pad")) and "Eomt" in processor}


def cut_to_frame(maps: Tensor, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Cut maps [N, h, w] over the padded input to the part that covers the frame.

    Example:
        >>> from tubelet.models.hub_segmenter.pictures import cut_to_frame
        >>> cut_to_frame(torch.zeros(3, 16, 16), padded=(64, 64), size=(36, 64)).shape
        torch.Size([3, 9, 16])
    """
    if padded == size:
        return maps
    rows, columns = (
        max(round(cells * side / whole), 1) for cells, side, whole in zip(maps.shape[-2:], size, padded, strict=True)
    )
    return maps[..., :rows, :columns]


def to_frame(boxes: Tensor, cells: tuple[int, ...], frame: tuple[int, int]) -> Tensor:
    """Scale boxes [N, 4] from cells of masks to pixels of the frame.

    Example:
        >>> from tubelet.models.hub_segmenter.pictures import to_frame
        >>> to_frame(torch.tensor([[1.0, 1, 2, 2]]), (9, 16), (90, 160))
        tensor([[10., 10., 20., 20.]])
    """
    across = frame[1] / cells[1]
    down = frame[0] / cells[0]
    return boxes * boxes.new_tensor([across, down, across, down])
