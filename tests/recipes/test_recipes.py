"""Every recipe by name: it builds, learns with all its parameters, survives JSON, and trains from its own command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tubelet.core.errors import ConfigError, InputError, TubeletError, WeightsError
from tubelet.core.types import Clip, Tracks
from tubelet.data.clips import ClipDataset
from tubelet.models import weights
from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
from tubelet.models.rcnn.detectors.one_stage import OneStageConfig
from tubelet.models.rcnn.detectors.ssdlite import SSDLiteConfig
from tubelet.models.rcnn.model import MaskTrackConfig
from tubelet.recipes import default, find, masktrack, names
from tubelet.recipes.experiment import COCO, Experiment, Generated, YouTubeVIS
from tubelet.recipes.small import PLAIN

every_recipe = pytest.mark.parametrize("name", names())
# rows of the papers are asked the same, at a small size, in the tests of their own files
OWN = [*default.RECIPES, *masktrack.RECIPES, "small/masktrack", "small/compfeat", "small/objprop-neck"]
SMALL_WORLD = (
    "data.kind=generated",
    "data.videos=2",
    "data.world.frames=3",
    "data.world.height=72",
    "data.world.width=96",
    "train.iterations=2",
    "train.batch_size=1",
    "train.workers=0",
    "train.log_every=1",
    "train.precision=fp32",
    "transforms=[]",
    "model.detector.input.resize.height=96",
    "model.detector.input.resize.width=96",
)


def clip_with_objects_of_all_sizes() -> Clip:
    """Two frames of 300 x 300 with objects from a twentieth of the frame to all of it."""
    noise = torch.randint(0, 256, (2, 3, 300, 300), generator=torch.Generator().manual_seed(0))
    boxes = [(10, 10, 25, 25), (40, 60, 110, 140), (120, 20, 290, 220), (5, 5, 295, 295), (0, 0, 300, 300)]
    masks = torch.zeros(len(boxes), 2, 300, 300, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[:, y1:y2, x1:x2] = 1
    index = torch.arange(2)
    scores = torch.eye(3)[torch.arange(len(boxes)) % 3]
    truth = Tracks(ids=torch.arange(1, len(boxes) + 1), scores=scores, masks=masks, index=index)
    return Clip(frames=noise.to(torch.uint8), index=index, key=torch.ones(2, dtype=torch.bool), tracks=truth)


# names


def test_the_bundled_models_recipe_is_there() -> None:
    assert "default" in names()
    assert names() == sorted(set(names()))


def test_a_wrong_name_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'defualt'; did you mean 'default'"):
        find("defualt")


@every_recipe
def test_a_recipe_says_what_it_is_and_survives_json(name: str) -> None:
    recipe = find(name)
    assert recipe.about
    assert Experiment.from_tree(json.loads(recipe.model_dump_json())) == recipe
    assert recipe.override("train.seed=7").train.seed == 7
    assert find(name).train.seed == recipe.train.seed


@pytest.mark.parametrize("name", OWN)
def test_a_recipe_builds_and_gives_each_trainable_parameter_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    config = find(name).model
    assert isinstance(config, MaskTrackConfig)
    if config.detector.input.resize.kind == "keep_ratio":
        config = config.override("detector.input.resize.long=96", "detector.input.resize.short=96")  # for the clock
    model = config.build(("dog", "cat", "car")).train()
    losses = model([clip_with_objects_of_all_sizes()])
    total = sum(losses.values(), torch.zeros(()))
    assert total.isfinite()
    total.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", ["small/masktrack", "small/compfeat"])
def test_the_masks_of_a_small_rcnn_start_undecided(name: str) -> None:
    """Its trunk's maps are far larger than a ResNet's, which must not make the first masks wrong and certain."""
    recipe = find(name)
    videos = Generated(videos=4, world=PLAIN).read()
    clips = ClipDataset(videos, recipe.sampler, recipe.transforms, seed=0)
    torch.manual_seed(0)
    model = recipe.model.build(videos.classes)
    weights.start_from(model, "ssdlite")
    with torch.no_grad():
        losses = model.train()([clips[i] for i in range(2)])
    assert losses["mask"].item() == pytest.approx(0.693, abs=0.03)


@pytest.mark.parametrize(("name", "detector"), [("ssdlite", SSDLiteConfig), ("default", NanoDetConfig)])
def test_the_bundled_models_keep_their_detectors_as_pretrained(name: str, detector: type[OneStageConfig]) -> None:
    model = find(name).model
    assert isinstance(model.detector, detector)
    assert model.detector.frozen
    assert model.association.unique_ids


# overrides, as the command line gives them


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.lrr=1", "did you mean 'lr'"),
        ("model.detector.jiter=0.1", "did you mean 'jitter'"),
        ("modle.vote=score", "did you mean 'model'"),
        ("train.iterations=many", "train.iterations"),
        ("train.iterations=0", "train.iterations"),
        ("model.association.assignment=best", "assignment"),
        ("data.kind=coca", "data"),
    ],
)
def test_a_wrong_override_of_a_recipe_is_one_line(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        find("default").override(assignment)
    assert "\n" not in str(caught.value)


def test_a_model_is_swapped_by_kind() -> None:
    changed = find("default").override("model.detector.kind=two_stage", "model.detector.backbone.name=resnet18")
    assert changed.model.detector.kind == "two_stage"
    assert changed.model.mask == find("default").model.mask


def test_an_experiment_without_a_model_is_refused() -> None:
    with pytest.raises(ConfigError):
        Experiment(about="nothing")  # type: ignore[call-arg]


# data


@pytest.mark.parametrize("data", [YouTubeVIS(), COCO()])
def test_data_without_a_place_says_which_field_is_wanted(data: YouTubeVIS | COCO) -> None:
    with pytest.raises(ConfigError, match=r"data\.annotations=PATH"):
        data.read()


@pytest.mark.parametrize("kind", [YouTubeVIS, COCO])
def test_data_that_is_not_there_is_one_line(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json") as caught:
        kind(annotations=str(tmp_path / "nowhere.json")).read()
    assert "\n" not in str(caught.value)


@pytest.fixture
def coco(tmp_path: Path) -> COCO:
    """Three images with one object each, and lists of their ids."""
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 10, "width": 12} for n in (1, 2, 3)]
    objects = [
        {
            "id": n,
            "image_id": n,
            "category_id": 5,
            "segmentation": [[1, 1, 9, 1, 9, 8]],
            "area": 28,
            "bbox": [1, 1, 8, 7],
            "iscrowd": 0,
        }
        for n in (1, 2, 3)
    ]
    document = {"images": images, "annotations": objects, "categories": [{"id": 5, "name": "dog"}]}
    (tmp_path / "images").mkdir()
    (tmp_path / "instances.json").write_text(json.dumps(document))
    (tmp_path / "split.json").write_text('{"train": [1, 3], "val": [2], "odd": 5, "named": ["a"]}')
    (tmp_path / "list.json").write_text("[1, 2]")
    return COCO(annotations=str(tmp_path / "instances.json"))


def test_a_split_chooses_its_part_of_the_images(coco: COCO, tmp_path: Path) -> None:
    split = str(tmp_path / "split.json")
    assert len(coco.read().videos) == 3
    assert len(coco.override(f"split={split}").read().videos) == 2
    assert len(coco.override(f"split={split}", "part=val").read().videos) == 1


@pytest.mark.parametrize(
    ("file", "part"), [("split.json", "test"), ("split.json", "odd"), ("split.json", "named"), ("list.json", "train")]
)
def test_a_split_of_another_form_is_refused(coco: COCO, tmp_path: Path, file: str, part: str) -> None:
    with pytest.raises(TubeletError, match=file.replace(".", r"\.")):
        coco.override(f"split={tmp_path / file}", f"part={part}").read()


def test_generated_data_needs_no_download_and_repeats() -> None:
    data = Generated(videos=2, seed=3).override("world.frames=2", "world.height=48", "world.width=64")
    first, second = data.read(), data.read()
    assert len(first.videos) == 2
    assert all(
        torch.equal(a.frames[t], b.frames[t]) for a, b in zip(first.videos, second.videos, strict=True) for t in (0, 1)
    )
    assert [video.tracks for video in first.videos] == [video.tracks for video in second.videos]


# from name to model


def test_a_recipe_trains_from_its_name_and_the_model_loads(tmp_path: Path) -> None:
    recipe = find("ssdlite").override(*SMALL_WORLD, "init=none")
    recipe.run(tmp_path / "run", device="cpu")
    model = weights.load(tmp_path / "run", device="cpu")
    assert model.config == recipe.model
    assert model.classes == recipe.data.read().classes
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2


def test_a_start_that_is_not_there_stops_before_anything_is_written(tmp_path: Path) -> None:
    recipe = find("ssdlite").override(*SMALL_WORLD, f"init={tmp_path / 'nowhere.safetensors'}")
    with pytest.raises(WeightsError, match="nowhere"):
        recipe.run(tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
