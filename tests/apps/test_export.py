"""`tubelet export`: what it says, what it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tubelet.apps.cli import call
from tubelet.export import network
from tubelet.models import weights
from tubelet.models.inputs import InputConfig, Stretch
from tubelet.models.rcnn.detectors.ssdlite import SSDLiteConfig
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.model import MaskTrackConfig

SMALL = MaskTrackConfig(
    detector=SSDLiteConfig(
        input=InputConfig(resize=Stretch(height=64, width=64)), channels=8, calibration=(1.0, 4.6), max_detections=2
    ),
    mask=MaskHeadConfig(convs=1, channels=8, resolution=4),
    match=FullyConnectedMatchConfig(channels=8, resolution=2),
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = SMALL.build(("cat", "dog")).eval()
    monkeypatch.setattr(weights, "load", lambda name, **how: model)


def test_the_ending_of_the_file_chooses_the_format(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["export", "default", "--out", str(tmp_path / "net.pt2"), "--size", "48x80"]) == 0
    program = torch.export.load(tmp_path / "net.pt2").module()
    boxes, scores, *_ = program(torch.zeros(3, 48, 80))
    assert (boxes.shape, scores.shape) == ((2, 4), (2, 2))
    told = capsys.readouterr().out
    assert "[3, 48, 80]" in told
    assert "boxes, scores, regions, masks, descriptors" in told
    assert "no association" in told


def test_onnx_is_written_with_how_well_it_agrees(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[Any] = []
    monkeypatch.setattr(network, "write_onnx", lambda what, path: written.append(path) or 2e-6)
    assert call(["export", "default", "--out", str(tmp_path / "net.bin"), "--format", "onnx"]) == 0
    assert written == [tmp_path / "net.bin"]
    assert "agrees with PyTorch to 2e-06" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out", "net.bin"], "ends in .pt2 or .onnx"),
        (["--out", "net.pt2", "--size", "360"], "HEIGHTxWIDTH"),
        (["--out", "net.pt2", "--size", "4x4"], "32 to 8192"),
        (["--out", "/proc/gone/net.pt2"], "cannot be written"),
    ],
)
def test_wrong_arguments_are_one_line(
    small: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["export", "default", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_family_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = torch.nn.Identity()
    monkeypatch.setattr(weights, "load", lambda name, **how: model)
    assert call(["export", "tags", "--out", str(tmp_path / "net.onnx")]) == 2
    assert "expected a model of the R-CNN family or Mask2Former" in capsys.readouterr().err
