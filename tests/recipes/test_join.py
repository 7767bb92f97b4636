"""A start of the default recipe is one file's detector with another model's heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tubelet.core.errors import WeightsError
from tubelet.models import weights
from tubelet.models.rcnn.detectors.nanodet import NanoDet
from tubelet.models.rcnn.model import MaskTrackRCNN
from tubelet.recipes.join import join


def test_the_detector_is_of_the_first_file_and_the_heads_are_of_the_second(shared: Path, tmp_path: Path) -> None:
    path = shared / "weights" / "nanodet_plus_m15_coco.safetensors"
    if not path.exists():
        pytest.skip("the public NanoDet-Plus weights are not here")
    join(str(path), "ssdlite", tmp_path / "start.safetensors")

    joined = weights.load(tmp_path / "start.safetensors", device="cpu")
    assert isinstance(joined, MaskTrackRCNN)
    assert isinstance(joined.detector, NanoDet)
    donor = weights.load("ssdlite", device="cpu").state_dict()
    for name, tensor in joined.state_dict().items():
        if name.startswith(("mask.", "match.")):
            assert torch.equal(tensor, donor[name]), name
    first = weights.read_tensors(path)
    assert torch.equal(joined.state_dict()["detector.stem.weight"], first["stem.weight"])


def test_a_detector_that_is_not_there_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        join(str(tmp_path / "nowhere.safetensors"), "ssdlite", tmp_path / "start.safetensors")
    assert list(tmp_path.iterdir()) == []
