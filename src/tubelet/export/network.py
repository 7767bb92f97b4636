"""Export the network of one frame or one clip with torch.export or to ONNX.

The file runs without tubelet. Its one input is frames as float32 RGB of 0 to 255, at a fixed size;
all shapes are fixed. It includes resizing and normalisation, but neither association nor memory:
docs/export.md describes how to add them.

Steps whose shapes depend on the data are replaced by fixed ones with the same results: non-maximum
suppression takes the best box as many times as there are detections, and RoIAlign reads all pyramid
levels and selects the one that suits the size of the region.

Letters: D detections, K classes, T frames, Q queries.
"""

from __future__ import annotations

import copy
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.export import ExportedProgram

from tubelet.core.atomic import replacing
from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, InputError
from tubelet.engines.choice import absent
from tubelet.engines.engine import TOLERANCE, difference
from tubelet.engines.onnx_file import write
from tubelet.engines.onnx_runtime import OnnxRuntime
from tubelet.export.parts import ResizeFrames
from tubelet.models.inputs import Images
from tubelet.models.mask2former.model import Mask2Former
from tubelet.models.rcnn.heads.sockets import View
from tubelet.models.rcnn.model import MaskTrackRCNN

OBJECTS = ("boxes", "scores", "regions", "masks", "descriptors")


@dataclass(frozen=True, slots=True)
class Exportable:
    """A network that can be exported, and the metadata of its file.

    Example:
        >>> from tubelet.export.network import Exportable
        >>> export = Exportable(torch.nn.ReLU(), torch.zeros(3, 4, 6), ("maps",), "a ReLU", ("dog",))
        >>> export.about()["input"]
        'frames, float32 RGB 0..255, [3, 4, 6]'
    """

    network: nn.Module
    example: Tensor  # an example of its only input
    outputs: tuple[str, ...]  # names of the outputs
    holds: str  # a description of the content, in one line
    classes: tuple[str, ...]

    def trace(self) -> ExportedProgram:
        """Trace the network with torch.export, at the shape of the example."""
        with torch.no_grad():
            return torch.export.export(self.network, (self.example,), strict=False)

    def about(self) -> dict[str, str]:
        """Return the metadata of the file."""
        return {
            "input": f"frames, float32 RGB 0..255, {list(self.example.shape)}",
            "holds": self.holds,
            "outputs": json.dumps(self.outputs),
            "classes": json.dumps(self.classes),
        }


class FrameExport(Config):
    """Export one frame of a model of the R-CNN family.

    Outputs: boxes [D, 4] in pixels of the frame, scores [D, K], regions [D, 4] that the masks cover,
    masks [D, h, w] (probabilities) and descriptors [D, C] to compare with those of known objects.
    Unused rows are zeros.

    If attention to other frames comes before the boxes, only the pyramid is exported: maps
    [1, C, H / stride, W / stride].

    Example:
        >>> from tubelet.export.network import FrameExport
        >>> FrameExport(size=(480, 640))
        FrameExport(size=(480, 640))
    """

    size: tuple[int, int] = Field(default=(360, 640))  # height, width of the frames

    def build(self, model: MaskTrackRCNN) -> Exportable:
        """Prepare a copy of the model."""
        copied = _inference_copy(model)
        example = _test_pattern(self.size)
        if copied.config.neck is None and copied.config.regions is None:
            network = ObjectsOfFrame(copied, self.size)
            return Exportable(network, example, OBJECTS, "objects of one frame", model.classes)

        strides = copied.detector.all_strides
        outputs = tuple(f"P{stride.bit_length() - 1}" for stride in strides)
        holds = "the pyramid of one frame; attention over other frames comes before its boxes"
        return Exportable(PyramidOfFrame(copied, self.size), example, outputs, holds, model.classes)


class ClipExport(Config):
    """Export a clip of a Mask2Former or IFR model.

    Outputs: probabilities [Q, K] and mask_logits [Q, T, h, w].

    Example:
        >>> from tubelet.export.network import ClipExport
        >>> ClipExport(frames=2)
        ClipExport(size=(360, 640), frames=2)
    """

    size: tuple[int, int] = Field(default=(360, 640))  # height, width of the frames
    frames: int = Field(default=4, ge=1)  # length of the clip

    def build(self, model: Mask2Former) -> Exportable:
        """Prepare a copy of the model."""
        network = QueriesOfClip(_inference_copy(model), self.size)
        example = torch.stack([_test_pattern(self.size, shift=4 * t) for t in range(self.frames)])
        holds = f"queries of a clip of {self.frames} frames"
        return Exportable(network, example, ("probabilities", "mask_logits"), holds, model.classes)


def exportable(model: nn.Module, size: tuple[int, int] = (360, 640), frames: int = 4) -> Exportable:
    """Prepare a model for export: one frame of the R-CNN family, or one clip of Mask2Former.

    Args:
        model: The model; it is copied.
        size: Height and width of the frames, 32 to 8192.
        frames: Length of the clip, 1 to 256; ignored for the R-CNN family.

    Raises:
        ConfigError: if the model is of another kind, or if a number is out of range.

    Example:
        >>> from tubelet.export.network import exportable
        >>> exportable(torch.nn.ReLU())
        Traceback (most recent call last):
        ...
        tubelet.core.errors.ConfigError: export: expected a model of the R-CNN family or ...
    """
    if min(size) < 32 or max(size) > 8192 or not 1 <= frames <= 256:
        raise ConfigError(f"export: expected sides of 32 to 8192 pixels and 1 to 256 frames, got {size}, {frames}")
    if isinstance(model, MaskTrackRCNN):
        return FrameExport(size=size).build(model)
    if isinstance(model, Mask2Former):
        return ClipExport(size=size, frames=frames).build(model)
    raise ConfigError(f"export: expected a model of the R-CNN family or Mask2Former, got {type(model).__name__}")


def write_torch(export: Exportable, path: str | Path) -> None:
    """Write a .pt2 file.

    Before `torch.export.load`, import torchvision, which has the operators on regions. Raises
    WriteError if the file cannot be written.
    """
    with replacing(path) as partial:
        archive = io.BytesIO()  # on a full disk, torch's own writer would raise an internal error
        torch.export.save(export.trace(), archive, extra_files={"about.json": json.dumps(export.about())})
        partial.write_bytes(archive.getvalue())


def write_onnx(export: Exportable, path: str | Path) -> float:
    """Write an ONNX file, and return its `difference` from PyTorch.

    Raises InputError, and writes no file, if the extra `export` is not installed, if ONNX lacks an
    operator, or if the difference is more than TOLERANCE.
    """
    missing = absent("onnx")
    if missing:
        raise InputError(f"ONNX needs {', '.join(missing)}: install the extra, pip install 'tubelet[export]'")
    with replacing(path) as partial:
        with torch.no_grad():
            write(export.trace(), partial, export.about(), inputs=["frames"], outputs=export.outputs)
        largest = _difference(export, partial)
        if not largest <= TOLERANCE:
            raise InputError(f"{path}: not written, ONNX Runtime differs by {largest:.2g} from PyTorch")
    return largest


def _difference(export: Exportable, path: Path) -> float:
    """Run the example with ONNX Runtime and PyTorch, and return the largest relative difference."""
    compiled = OnnxRuntime(torch.get_num_threads()).compile(path, [tuple(export.example.shape)])
    with torch.no_grad():
        expected = export.network(export.example)
    return difference(compiled(export.example), tuple(expected))


class ObjectsOfFrame(nn.Module):
    """Boxes, scores, regions, masks and descriptors of one frame [3, H, W]."""

    def __init__(self, model: MaskTrackRCNN, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        self.resize = ResizeFrames(model.detector.config.input, size)
        model.detector.fixed_shapes = True

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        detector = model.detector
        images = self.resize(frame[None])
        features = detector.extract(images)
        scale = images.scales[0]
        detections, valid = detector.detect_fixed(features, images)

        view = View(detector=detector, features=features, frame=frame, scale=scale)
        descriptors = model.match.describe(view.cells(detections.boxes, model.match.resolution))
        regions, masks = model.mask.inside(view, detections.boxes, detections.labels)

        outputs = (detections.boxes / scale, detections.scores, regions / scale, masks, descriptors)
        return tuple(output * valid.view(-1, *[1] * (output.ndim - 1)) for output in outputs)


class PyramidOfFrame(nn.Module):
    """The pyramid of one frame [3, H, W], before attention to other frames."""

    def __init__(self, model: MaskTrackRCNN, size: tuple[int, int]) -> None:
        super().__init__()
        self.detector = model.detector
        self.resize = ResizeFrames(model.detector.config.input, size)

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.detector.extract(self.resize(frame[None])).maps)


class QueriesOfClip(nn.Module):
    """Class probabilities and mask logits of all queries of a clip [T, 3, H, W]."""

    def __init__(self, model: Mask2Former, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        self.resize = ResizeFrames(model.config.input, size)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        images: Images = self.resize(frames)
        pixels = self.model.pixels(images)
        prediction = self.model.decoder(pixels, len(frames), every=False)[-1]
        queries = self.model.answer(prediction, pixels, images.sizes[0])
        return queries.probabilities, queries.mask_logits


def _inference_copy(model: Any) -> Any:
    """A copy of the model on the CPU, in float32, in evaluation mode."""
    return copy.deepcopy(model).cpu().float().eval().requires_grad_(False)


def _test_pattern(size: tuple[int, int], shift: int = 0) -> Tensor:
    """Waves and a chessboard, moved to the left by `shift`; whole numbers, [3, H, W]."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width) + shift, indexing="ij")

    coarse = (x / 23).sin() + (y / 31).cos()
    diagonal = (x / 57 + y / 19).sin()
    chessboard = ((x // 40 + y // 40) % 2) * 1.4 - 0.7
    waves = torch.stack([coarse, diagonal, chessboard])
    return (waves.clamp(-1, 1) * 100 + 128).round()
