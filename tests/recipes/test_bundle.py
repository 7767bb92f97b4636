"""A trained model goes into the package with its heads in half precision, and only one that can be loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tubelet.core.errors import TubeletError
from tubelet.models import weights
from tubelet.models.rcnn.detectors.ssdlite import SSDLiteConfig
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.weights import finding
from tubelet.recipes.bundle import bundle
from tubelet.training.checkpoint import save_model


@pytest.fixture
def trained(tmp_path: Path) -> MaskTrackRCNN:
    """A small model, saved as a training leaves it in the folder `run`."""
    torch.manual_seed(0)
    config = MaskTrackConfig(
        detector=SSDLiteConfig(channels=8),
        mask=MaskHeadConfig(convs=1, channels=8, class_agnostic=True),
        match=FullyConnectedMatchConfig(channels=8),
    )
    model = config.build(("dog", "cat"))
    described = {"config": config.model_dump_json(), "classes": json.dumps(model.classes)}
    save_model(tmp_path / "run" / "model.safetensors", model, described)
    return model


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setattr(finding, "BUNDLED", folder)
    return folder


def test_a_bundled_model_loads_by_name_with_half_as_large_heads(
    trained: MaskTrackRCNN, package: Path, tmp_path: Path
) -> None:
    made = bundle(tmp_path / "run", "small", "association.birth=0.3")
    assert made == package / "small.safetensors"
    stored = load_file(made)
    for name, tensor in trained.state_dict().items():
        exact = name.startswith("detector.") or not tensor.is_floating_point()
        assert stored[name].dtype == (tensor.dtype if exact else torch.float16), name
    model = weights.load("small", device="cpu")
    assert model.config == trained.config.override("association.birth=0.3")
    for (name, first), second in zip(trained.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-4, msg=name)
    (row,) = [row for row in weights.list_models() if row.where == "bundled"]
    assert (row.name, row.classes, row.where) == ("small", 2, "bundled")
    assert row.licence


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("override", ["mask.channels=16", "match.layers=3", "mask.channles=16"])
def test_an_override_that_the_weights_do_not_fit_writes_nothing(package: Path, tmp_path: Path, override: str) -> None:
    with pytest.raises(TubeletError):
        bundle(tmp_path / "run", "small", override)
    assert list(package.iterdir()) == []
