"""Exported networks say what the models say; ONNX Runtime and torch.export's files say the same."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import batched_nms

from tubelet.core.errors import ConfigError, InputError
from tubelet.export import network
from tubelet.export.network import Exportable, exportable
from tubelet.export.parts import ResizeFrames
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import InputConfig, KeepRatio, Stretch
from tubelet.models.mask2former.decoder import JointConfig
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.models.mask2former.model import Mask2Former, Mask2FormerConfig
from tubelet.models.mask2former.pixel_decoder import PixelDecoderConfig
from tubelet.models.rcnn.detectors.fixed_shapes import suppress
from tubelet.models.rcnn.detectors.ssdlite import SSDLiteConfig
from tubelet.models.rcnn.detectors.two_stage import TwoStageConfig
from tubelet.models.rcnn.heads.crops import CropMaskConfig
from tubelet.models.rcnn.heads.paste import paste
from tubelet.models.rcnn.heads.sockets import View
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.rcnn.neck import STANeckConfig

CLASSES = ("cat", "dog", "tree")
SIZE = (90, 122)
INPUT = InputConfig(resize=KeepRatio(long=128, short=96))
TWO_STAGE = TwoStageConfig(
    input=INPUT,
    backbone=BackboneConfig(name="resnet18"),
    channels=16,
    proposals=12,
    proposals_per_level=20,
    box_channels=32,
    max_detections=4,
)
ONE_STAGE = SSDLiteConfig(
    input=InputConfig(resize=Stretch(height=96, width=96), mean=(127.5,) * 3, std=(127.5,) * 3),
    channels=16,
    calibration=(1.0, 4.6),  # untrained scores are near one in a hundred
    max_detections=4,
)
MATCH = FullyConnectedMatchConfig(channels=8, resolution=3)
MASK = MaskHeadConfig(convs=1, channels=8, resolution=7, margin=0.1)


def rcnn(**fields: object) -> MaskTrackRCNN:
    torch.manual_seed(1)
    config = MaskTrackConfig(detector=TWO_STAGE, mask=MASK, match=MATCH).but(**fields)
    return config.build(CLASSES).eval()


def mask2former(decoder: JointConfig | InterFrameConfig) -> Mask2Former:
    torch.manual_seed(1)
    config = Mask2FormerConfig(
        backbone=BackboneConfig(name="resnet18", frozen_stages=0),
        input=INPUT,
        pixel_decoder=PixelDecoderConfig(channels=16, layers=1, feed_forward=16, groups=4),
        decoder=decoder,
        queries=5,
    )
    return config.build(CLASSES).eval()


def said(what: Exportable) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return what.network(what.example)


# parts


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 3), st.integers(0, 1 << 30))
def test_suppression_keeps_the_first_boxes_that_torchvisions_keeps(n: int, count: int, groups: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=rng) * 40
    boxes = torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=rng) * 30], 1)
    scores, group = torch.rand(n, generator=rng), torch.randint(groups, (n,), generator=rng)
    kept, there = suppress(boxes, scores, group, 0.5, count)
    assert kept[there].tolist() == batched_nms(boxes, scores, group, 0.5)[:count].tolist()
    assert there.tolist() == sorted(there.tolist(), reverse=True)


@pytest.mark.parametrize("config", [INPUT, InputConfig(resize=Stretch(height=50, width=300)), InputConfig()])
def test_resizing_by_matrices_is_the_resize_of_frames(config: InputConfig) -> None:
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (2, 3, *SIZE), dtype=np.uint8))
    own, expected = ResizeFrames(config, SIZE)(frames.float()), config.prepare([frames])
    assert own.sizes == expected.sizes
    torch.testing.assert_close(own.scales, expected.scales)
    level = 1 / min(config.std)  # one of 256: the other rounds once or twice, as the version of torch has it
    assert float((own.pixels - expected.pixels).abs().max()) <= 2.01 * level
    assert float((own.pixels - expected.pixels).abs().mean()) < 0.22 * level


def test_cutting_from_every_level_is_cutting_from_the_right_one() -> None:
    detector = rcnn().detector
    torch.manual_seed(0)
    maps = [torch.randn(1, 16, 96 // s, 128 // s) for s in (4, 8, 16, 32, 64)]
    boxes = torch.tensor([[3.0, 4, 20, 30], [0, 0, 120, 90], [5, 5, 70, 60], [10, 10, 10, 10], [-9, -9, 300, 300]])
    expected = detector.regions(maps, [boxes], 7)
    detector.fixed_shapes = True
    torch.testing.assert_close(detector.regions(maps, [boxes], 7), expected)


@pytest.mark.parametrize("detector", [TWO_STAGE, ONE_STAGE, ONE_STAGE.but(suppress="across_classes")])
@torch.no_grad()
def test_detections_are_the_models_own(detector: TwoStageConfig | SSDLiteConfig) -> None:
    own = rcnn(detector=detector).detector
    images = ResizeFrames(detector.input, SIZE)(network._test_pattern(SIZE)[None])
    features = own.extract(images)
    (expected,) = own.detect(features, images)
    found, there = own.detect_fixed(features, images)
    assert len(expected) == int(there.sum()) > 0
    torch.testing.assert_close(found.boxes[there], expected.boxes, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.scores[there], expected.scores)


# whole networks


@pytest.mark.parametrize(
    "fields",
    [{}, {"detector": ONE_STAGE}, {"detector": ONE_STAGE, "mask": CropMaskConfig(size=32, second_look=0.7)}],
    ids=["two stages", "one stage", "crops"],
)
@torch.no_grad()
def test_masks_and_descriptors_are_the_models_own(fields: dict[str, object]) -> None:
    model = rcnn(**fields)
    what = exportable(model, SIZE)
    boxes, scores, regions, masks, descriptors = said(what)
    there = scores.amax(1) > 0
    images = what.network.resize(what.example[None])  # type: ignore[operator]
    features = model.detector.extract(images)
    (found,) = model.detector.detect(features, images)
    torch.testing.assert_close(boxes[there] * images.scales[0], found.boxes, atol=1e-3, rtol=1e-4)
    cells = model.detector.cells(features, [found.boxes], MATCH.resolution)
    torch.testing.assert_close(descriptors[there], model.match.describe(cells))
    view = View(detector=model.detector, features=features, frame=what.example, scale=images.scales[0])
    expected = model.mask.masks(view, found.boxes, found.labels).probabilities
    torch.testing.assert_close(paste(masks[there], regions[there], SIZE).probabilities, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("decoder", [JointConfig(layers=2, heads=2, feed_forward=16), InterFrameConfig(layers=2)])
def test_queries_are_what_the_model_sees(decoder: JointConfig | InterFrameConfig) -> None:
    model = mask2former(decoder)
    what = exportable(model, SIZE, frames=3)
    probabilities, logits = said(what)
    answer = model.look(what.example.to(torch.uint8))
    torch.testing.assert_close(probabilities, answer.probabilities, atol=2e-2, rtol=0)  # a pixel may differ by 1
    assert logits.shape == answer.mask_logits.shape
    agree = (logits > 0) == (answer.mask_logits > 0)
    assert float(agree.float().mean()) > 0.99


def test_attention_before_boxes_ends_the_file_at_the_pyramid() -> None:
    what = exportable(rcnn(neck=STANeckConfig(levels=("P4",))), SIZE)
    assert what.outputs == ("P2", "P3", "P4", "P5", "P6")
    assert [tuple(m.shape[1:]) for m in said(what)] == [(16, -(-96 // s), 128 // s) for s in (4, 8, 16, 32, 64)]
    assert "attention" in what.holds


CASES = {
    "two stages": cache(lambda: exportable(rcnn(), SIZE)),
    "one stage": cache(lambda: exportable(rcnn(detector=ONE_STAGE, mask=CropMaskConfig(size=32)), SIZE)),
    "joint": cache(lambda: exportable(mask2former(JointConfig(layers=1, heads=2, feed_forward=16)), SIZE, frames=2)),
    "inter-frame": cache(lambda: exportable(mask2former(InterFrameConfig(layers=1)), SIZE, frames=2)),
}
TRACE_ONCE = cache(Exportable.trace)


@pytest.fixture(autouse=True)
def traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of file are written of one trace, which takes seconds."""
    monkeypatch.setattr(Exportable, "trace", TRACE_ONCE)


def one_layer() -> Exportable:
    """A network of one layer, for what does not depend on the network."""
    layer = torch.nn.Conv2d(3, 64, 5)
    return Exportable(layer, torch.ones(3, 8, 8), ("maps",), "one layer", CLASSES)


@pytest.mark.parametrize("case", CASES)
def test_onnx_runtime_gives_equal_outputs(case: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    import onnxruntime

    what = CASES[case]()
    differs = network.write_onnx(what, tmp_path / "network.onnx")
    assert differs < 1e-3
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    other = what.example.flip(-1)
    with torch.no_grad():
        expected = what.network(other)
    told = session.run(None, {"frames": other.numpy()})
    assert [entry.name for entry in session.get_outputs()] == list(what.outputs)
    for own, output in zip(expected, told, strict=True):
        torch.testing.assert_close(torch.from_numpy(output), own, atol=1e-3, rtol=1e-3)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


@pytest.mark.skipif(os.name != "posix", reason="limits of files")
def test_a_pt2_file_that_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(InputError, match=r"network\.pt2"):
            network.write_torch(one_layer(), tmp_path / "network.pt2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", ["one stage", "joint"])
def test_a_pt2_file_gives_equal_outputs(case: str, tmp_path: Path) -> None:
    what = CASES[case]()
    network.write_torch(what, tmp_path / "network.pt2")
    about = {"about.json": ""}
    program = torch.export.load(tmp_path / "network.pt2", extra_files=about).module()
    for own, output in zip(said(what), program(what.example), strict=True):
        torch.testing.assert_close(output, own)
    assert json.loads(json.loads(about["about.json"])["outputs"]) == list(what.outputs)
    assert [path.name for path in tmp_path.iterdir()] == ["network.pt2"]


def test_an_onnx_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "difference", lambda outputs, expected: float("inf"))
    with pytest.raises(InputError, match="not written"):
        network.write_onnx(one_layer(), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="R-CNN family or Mask2Former, got Linear"):
        exportable(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="sides"):
        exportable(rcnn(), (8, 640))
    with pytest.raises(InputError, match="cannot be written"):
        network.write_torch(one_layer(), "/proc/gone/network.pt2")
