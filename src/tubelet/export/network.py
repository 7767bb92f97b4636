"""The network of one frame, or of one clip, as a file that runs without this package: torch.export and ONNX.

A file has one input, frames as float32 RGB of 0 to 255 at one fixed size, and fixed shapes throughout; it resizes and
normalises by itself. It holds neither association nor memory: docs/export.md says what is left to do.

What depends on the data is made fixed without changing a result: suppression takes its first boxes one after another,
as often as there are detections; regions are cut from every map, and the one that suits their size is taken.
Letters: D detections, K classes, T frames, Q queries.
"""

from __future__ import annotations

import copy
import io
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.export import ExportedProgram

from tubelet.core.atomic import replacing
from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, InputError
from tubelet.export.parts import Resize
from tubelet.models.inputs import Images
from tubelet.models.mask2former.model import Mask2Former
from tubelet.models.rcnn.heads.sockets import View
from tubelet.models.rcnn.model import MaskTrackRCNN

OPSET = 18
OBJECTS = ("boxes", "scores", "regions", "masks", "descriptors")
TOLERANCE = 1e-3  # within which ONNX Runtime must agree


@dataclass(frozen=True, slots=True)
class Exportable:
    """A network ready to be written, with what its file says of itself."""

    network: nn.Module
    example: Tensor  # its only input
    outputs: tuple[str, ...]
    holds: str  # in one line
    classes: tuple[str, ...]

    def trace(self) -> ExportedProgram:
        """The program of the network at the example's shape."""
        with torch.no_grad():
            return torch.export.export(self.network, (self.example,), strict=False)

    def about(self) -> dict[str, str]:
        """Strings that go beside the program."""
        told = {"input": f"frames, float32 RGB 0..255, {list(self.example.shape)}", "holds": self.holds}
        return {**told, "outputs": json.dumps(self.outputs), "classes": json.dumps(self.classes)}


class FrameExport(Config):
    """One frame through a model of the R-CNN family.

    boxes [D, 4] in the frame's pixels, scores [D, K], regions [D, 4] that masks [D, h, w] (probabilities) cover, and
    descriptors [D, C] to compare with those of known objects; rows of zeros are no detections. Where attention reads
    other frames before boxes are known, the file ends at the pyramid: maps [1, C, H/s, W/s].
    """

    size: tuple[int, int] = Field(default=(360, 640))  # height, width of the frames

    def build(self, model: MaskTrackRCNN) -> Exportable:
        own = _plain(model)
        example = _picture(self.size)
        if own.config.neck is None and own.config.regions is None:
            return Exportable(ObjectsOfFrame(own, self.size), example, OBJECTS, "objects of one frame", model.classes)
        strides = own.detector.all_strides
        outputs = tuple(f"P{stride.bit_length() - 1}" for stride in strides)
        holds = "the pyramid of one frame; attention over other frames comes before its boxes"
        return Exportable(PyramidOfFrame(own, self.size), example, outputs, holds, model.classes)


class ClipExport(Config):
    """A clip of so many frames through Mask2Former or IFR: probabilities [Q, K] and mask_logits [Q, T, h, w]."""

    size: tuple[int, int] = Field(default=(360, 640))
    frames: int = Field(default=4, ge=1)

    def build(self, model: Mask2Former) -> Exportable:
        example = torch.stack([_picture(self.size, shift=4 * t) for t in range(self.frames)])
        holds = f"queries of a clip of {self.frames} frames"
        outputs = ("probabilities", "mask_logits")
        return Exportable(QueriesOfClip(_plain(model), self.size), example, outputs, holds, model.classes)


def exportable(model: nn.Module, size: tuple[int, int] = (360, 640), frames: int = 4) -> Exportable:
    """What can be written of a model. Raises ConfigError for a model of another kind."""
    if min(size) < 32 or max(size) > 8192 or not 1 <= frames <= 256:
        raise ConfigError(f"export: expected sides of 32 to 8192 pixels and 1 to 256 frames, got {size}, {frames}")
    if isinstance(model, MaskTrackRCNN):
        return FrameExport(size=size).build(model)
    if isinstance(model, Mask2Former):
        return ClipExport(size=size, frames=frames).build(model)
    raise ConfigError(f"export: expected a model of the R-CNN family or Mask2Former, got {type(model).__name__}")


def write_torch(what: Exportable, path: str | Path) -> None:
    """Write a .pt2 file; `torch.export.load` needs `import torchvision` before it, for the operators of regions."""
    with replacing(path) as partial:
        archive = io.BytesIO()  # torch's own way to a file takes a full disk for a fault in its code
        torch.export.save(what.trace(), archive, extra_files={"about.json": json.dumps(what.about())})
        partial.write_bytes(archive.getvalue())


def write_onnx(what: Exportable, path: str | Path) -> float:
    """Write an ONNX file; returns by how much ONNX Runtime differs from PyTorch at most, on the example.

    Differences are relative to each output's largest value, at least 1. Raises InputError where the extra `export` is
    missing, where an operator is not to be had, or where the difference is more than TOLERANCE; then no file is left.
    """
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX needs {', '.join(missing)}: install the extra, pip install 'tubelet[export]'")
    with replacing(path) as partial:
        _to_onnx(what, partial)
        differs = difference(what, partial)
        if not differs <= TOLERANCE:
            raise InputError(f"{path}: not written, ONNX Runtime differs by {differs:.2g} from PyTorch")
    return differs


def difference(what: Exportable, path: Path) -> float:
    """How far an ONNX file is from its network, on the example; relative to each output's largest value, at least 1."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    told = session.run(None, {session.get_inputs()[0].name: what.example.numpy()})
    with torch.no_grad():
        expected = what.network(what.example)
    pairs = zip(expected, map(torch.from_numpy, told), strict=True)
    return max(float((own - other).abs().max() / own.abs().max().clamp(min=1)) for own, other in pairs)


class ObjectsOfFrame(nn.Module):
    """Detector, masks and descriptors of one frame [3, H, W]."""

    def __init__(self, model: MaskTrackRCNN, size: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.resize = model, Resize(model.detector.config.input, size)
        model.detector.fixed_shapes = True

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        model, detector = self.model, self.model.detector
        images = self.resize(frame[None])
        features, scale = detector.extract(images), images.scales[0]
        found, there = detector.detect_fixed(features, images)
        view = View(detector=detector, features=features, frame=frame, scale=scale)
        descriptors = model.match.describe(view.cells(found.boxes, model.match.resolution))
        regions, masks = model.mask.inside(view, found.boxes, found.labels)
        outputs = found.boxes / scale, found.scores, regions / scale, masks, descriptors
        return tuple(output * there.view(-1, *[1] * (output.ndim - 1)) for output in outputs)


class PyramidOfFrame(nn.Module):
    """The raw maps of one frame [3, H, W]: what attention reads, of this frame and of others."""

    def __init__(self, model: MaskTrackRCNN, size: tuple[int, int]) -> None:
        super().__init__()
        self.detector, self.resize = model.detector, Resize(model.detector.config.input, size)

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.detector.extract(self.resize(frame[None])).maps)


class QueriesOfClip(nn.Module):
    """All queries of a clip [T, 3, H, W]."""

    def __init__(self, model: Mask2Former, size: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.resize = model, Resize(model.config.input, size)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        images: Images = self.resize(frames)
        pixels = self.model.pixels(images)
        prediction = self.model.decoder(pixels, len(frames), every=False)[-1]
        answer = self.model.answer(prediction, pixels, images.sizes[0])
        return answer.probabilities, answer.mask_logits


def _plain(model: Any) -> Any:
    """A copy to be taken apart: on the CPU, in float32, at rest."""
    return copy.deepcopy(model).cpu().float().eval().requires_grad_(False)


def _picture(size: tuple[int, int], shift: int = 0) -> Tensor:
    """A smooth pattern of whole numbers with edges in it, [3, H, W]: something to see, the same every time."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]) + shift, indexing="ij")
    waves = torch.stack(
        [(x / 23).sin() + (y / 31).cos(), (x / 57 + y / 19).sin(), ((x // 40 + y // 40) % 2) * 1.4 - 0.7]
    )
    return (waves.clamp(-1, 1) * 100 + 128).round()


def _to_onnx(what: Exportable, path: Path) -> None:
    import onnx

    from tubelet.export.onnx_operators import TRANSLATIONS, quietly

    with quietly(), torch.no_grad():
        try:
            program = torch.onnx.export(
                what.trace(),
                (what.example,),
                input_names=["frames"],
                output_names=list(what.outputs),
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = " ".join(str(error).split())[-200:]
            raise InputError(f"ONNX lacks an operator of this model: ...{reason}") from None
    assert program is not None
    model = program.model_proto
    for key, value in what.about().items():
        onnx.helper.set_model_props(model, {**{p.key: p.value for p in model.metadata_props}, key: value})
    onnx.save(model, path)
