"""Where a training starts: by name, from nothing where that is said, and with a report of what fits."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tubelet import recipes
from tubelet.apps.cli import call
from tubelet.core.errors import ConfigError, WeightsError
from tubelet.models.weights import hub, start_from
from tubelet.recipes import find
from tubelet.recipes.starting import start

FETCHED = {"torchvision/maskrcnn_resnet50_fpn", "torchvision/resnet101", "torchvision/r2plus1d_18", *hub.names()}


def test_every_recipe_names_its_start_or_says_what_to_name() -> None:
    known = {*FETCHED, *recipes.names(), "none"}
    for name in recipes.names():
        recipe = find(name)
        if recipe.init is None:
            assert recipe.init_recipe in known or recipe.init_needs.startswith(
                ("a Mask2Former", "an EoMT", "the public SSDLite", "NanoDet-Plus of COCO")
            ), name
        else:
            assert recipe.init in known, name


def test_only_small_and_generated_recipes_train_from_nothing() -> None:
    bare = [name for name in recipes.names() if find(name).init == "none"]
    assert bare == ["masktrack/generated", "tags/generated-paper"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ssdlite", r"this recipe needs init=PATH, a run of ssdlite-start .*; init=none trains from nothing"),
        ("default", r"this recipe needs init=PATH, NanoDet-Plus of COCO with the heads of ssdlite, joined by"),
        (
            "objprop/ytvis2019",
            r"init=PATH, a run of masktrack/ytvis2019 \(tubelet train masktrack/ytvis2019 \.\.\. --out PATH\)",
        ),
        ("ifr/table1/r50", r"needs init=PATH, a Mask2Former of COCO with this ResNet, conv"),
    ],
)
def test_a_start_that_must_be_named_is_asked_for_in_one_line(name: str, said: str) -> None:
    with torch.device("meta"):
        model = find(name).model.build(("a", "b"))
    with pytest.raises(ConfigError, match=said):
        find(name)._start(model)


def test_what_fits_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tubelet.progress")
    start(find("small/masktrack").model.build(("a", "b")), "ssdlite", "")
    assert caplog.records[-1].message == "init=ssdlite: 255 of 297 tensors fit; random: detector 30, mask 8, match 4"


def test_fewer_than_half_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    model = find("small/masktrack").model.build(("a", "b"))
    some = {name: tensor.clone() for name, tensor in list(model.state_dict().items())[:5]}
    save_file(some, tmp_path / "five.safetensors")
    with pytest.raises(
        WeightsError, match=r"five\.safetensors: [45] of 297 tensors fit, fewer than half.*init_partial"
    ):
        start(model, str(tmp_path / "five.safetensors"), "")
    start(model, str(tmp_path / "five.safetensors"), "", partial=True)


def test_a_trunk_is_taken_from_another_family_with_the_same_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tubelet.progress")
    torch.manual_seed(3)
    masktrack = find("small/masktrack").model.build(("a", "b")).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in masktrack.items()}, tmp_path / "other.safetensors")
    torch.manual_seed(4)
    model = find("small/mask2former").model.build(("a", "b"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start(model, str(tmp_path / "other.safetensors"), "", parts="backbone")
    assert "of the trunk fit" in caplog.text
    after = model.state_dict()
    for name, tensor in after.items():
        if name.startswith("backbone.body."):
            assert torch.equal(tensor, masktrack[f"detector.{name}"]), name
        else:
            assert torch.equal(tensor, before[name]), name


def test_a_trunk_alone_leaves_the_heads_of_the_same_model_random(tmp_path: Path) -> None:
    model = find("small/masktrack").model.build(("a", "b"))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "same.safetensors")
    random = start_from(model, str(tmp_path / "same.safetensors"), parts="backbone")
    assert random
    assert not [name for name in random if "backbone.body" in name]


def test_a_trunk_that_is_random_and_frozen_is_said_loudly(caplog: pytest.LogCaptureFixture) -> None:
    recipe = find("small/masktrack")
    start(recipe.model.build(("a",)), "none", "")
    assert "frozen tensors of the trunk are random (detector.backbone.body." in caplog.text
    caplog.clear()
    start(recipe.model.build(("a",)), "ssdlite", "")
    start(find("masktrack/generated").model.build(("a",)), "none", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_missing_start_is_one_line_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["data.kind=generated", "data.videos=2", "data.world.frames=2", "transforms=[]"]
    assert call(["train", "objprop/ytvis2019", *small, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
