"""Rows of STA and CompFeat: what each changes, that all of it learns, and that batches do not mix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tubelet.core.config import Config
from tubelet.core.errors import ConfigError
from tubelet.core.types import Clip, Tracks, Video, VideoSet
from tubelet.data.clips import ClipDataset
from tubelet.formats import ytvis
from tubelet.formats.classes import YTVIS_2019
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.rcnn.targets import partners_of
from tubelet.recipes import compfeat, sta
from tubelet.recipes.experiment import Experiment, WithImages
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate

ROWS = {**sta.RECIPES, **compfeat.RECIPES}
every_row = pytest.mark.parametrize("name", ROWS)
# rows that differ in data, sampler or cues alone are one network
DISTINCT = {ROWS[n].model.override("association.cues=true", "window={}").model_dump_json(): n for n in reversed(ROWS)}
every_network = pytest.mark.parametrize("name", sorted(DISTINCT.values()))
SMALL = (
    "detector.input.resize.long=96",
    "detector.input.resize.short=64",
    "detector.backbone.name=resnet18",
    "detector.channels=16",
    "detector.box_channels=32",
    "detector.proposals=20",
    "detector.proposals_per_level=20",
    "mask.convs=1",
    "mask.channels=16",
    "match.channels=16",
)


def small(name: str) -> MaskTrackRCNN:
    torch.manual_seed(0)
    model = ROWS[name].model.override(*SMALL).build(("dog", "cat", "car"))
    assert isinstance(model, MaskTrackRCNN)
    return model


def clip(supports: int = 2, seed: int = 0) -> Clip:
    """Supports, a reference and a current frame of 64x96 with three squares that move."""
    length = supports + 2
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (length, 3, 64, 96), generator=generator).to(torch.uint8)
    masks = torch.zeros(3, length, 64, 96, dtype=torch.uint8)
    for n, (top, left, side) in enumerate(((4, 6, 26), (30, 50, 30), (2, 60, 24))):
        for t in range(length):
            masks[n, t, top + t : top + t + side, left : left + side] = 1
            frames[t, n, top + t : top + t + side, left : left + side] = 255
    index = torch.arange(length)
    truth = Tracks(ids=torch.arange(1, 4), scores=torch.eye(3), masks=masks, index=index)
    return Clip(frames=frames, index=index, key=index == length - 1, tracks=truth)


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for name, value in tree.items() for k, v in leaves(value, f"{path}.{name}".lstrip(".")).items()}


def changed(row: Config, base: Config) -> set[str]:
    """Paths that differ, cut where a whole part was exchanged."""
    ours, theirs = leaves(row.model_dump(mode="json")), leaves(base.model_dump(mode="json"))
    paths = {path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)}
    return {".".join(path.split(".")[:2]) if path.startswith("model.") else path.split(".")[0] for path in paths}


ATTENTION = {"sampler", "model.window"}
EXPECTED = {
    "compfeat/table1/masktrack": {"data", "transforms"},
    "compfeat/table1/baseline": set(),
    **{f"compfeat/table2/frame{which}": ATTENTION | {"model.neck"} for which in ("", "-temporal", "-spatial")},
    **{f"compfeat/table2/object{which}": ATTENTION | {"model.regions"} for which in ("", "-temporal", "-spatial")},
    "compfeat/table2/frame-object": ATTENTION | {"model.neck", "model.regions"},
    "compfeat/table3/cm": {"model.match"},
    "compfeat/table3/cm+fda": ATTENTION | {"model.match", "model.neck"},
    "compfeat/table3/cm+oda": ATTENTION | {"model.match", "model.regions"},
    "compfeat/table3/cm+fda+oda": ATTENTION | {"model.match", "model.neck", "model.regions"},
    **{
        f"compfeat/table4/{spread}-{number}": ATTENTION | {"model.match", "model.neck", "model.regions", "evaluations"}
        for spread in ("uniform", "random")
        for number in (2, 3)
    },
    "compfeat/table5/masktrack": {"data", "transforms", "model.association"},
    "compfeat/table5/baseline": {"model.association"},
    "compfeat/table5/compfeat": ATTENTION | {"model.match", "model.neck", "model.regions", "model.association"},
    "sta/baseline": set(),
    **{name: {"model.neck"} for name in sta.RECIPES if name != "sta/baseline"},
    "sta/ablation/ordered-pairs": {"model.neck", "sampler"},
}


@every_row
def test_a_row_differs_from_its_base_only_where_its_name_says(name: str) -> None:
    base = ROWS["sta/baseline" if name.startswith("sta") else "compfeat/table1/baseline"]
    assert changed(ROWS[name], base) - {"about", "paper"} == EXPECTED[name]


@every_network
def test_a_row_has_the_size_of_its_parts(name: str) -> None:
    """Parameters at full size and 40 classes: MaskTrack's, and what docs/papers say of each part."""
    config = ROWS[name].model
    assert isinstance(config, MaskTrackConfig)
    with torch.device("meta"):
        model = config.build(tuple(map(str, range(40))))
    wanted = 58_081_093
    if config.neck is not None and config.neck.kind == "sta":
        wanted += 737_601 if config.neck.channels == 64 else 1_180_161
    for dual in (config.neck, config.regions):
        if dual is not None and dual.kind == "dual":
            wanted += 65_984 * dual.temporal + 33_473 * dual.spatial
    if config.match.kind == "correlation":
        wanted += 590_337 + 66_049 - 13_895_680
    assert sum(p.numel() for p in model.parameters()) == wanted


@every_network
def test_every_trainable_parameter_of_a_row_gets_a_gradient(name: str) -> None:
    model = small(name).train()
    supports = getattr(ROWS[name].sampler, "supports", 0)
    losses = model([clip(supports)])
    sum(losses.values(), torch.zeros(())).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", ["sta/ytvis2019", "compfeat/table2/frame-object", "compfeat/table3/cm+fda+oda"])
def test_a_batch_of_one_and_a_batch_of_four_agree(name: str) -> None:
    model = small(name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.01
        clips = [clip(2, seed) for seed in range(4)]
        whole = detected(model, clips)
        for n, one in enumerate(clips):
            for ours, theirs in zip(whole[n], detected(model, [one])[0], strict=True):
                torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)


def detected(model: MaskTrackRCNN, clips: list[Clip]) -> list[tuple[torch.Tensor, ...]]:
    """Box logits and codes of the true boxes of each clip's current frame, through neck and object-level attention."""
    images, partners = model._prepare(clips), partners_of(clips)
    features = model._refine_batch(model.detector.extract(images), images, partners).at(*partners.key)
    boxes = [c.tracks.boxes[:, -1] for c in clips if c.tracks is not None]
    cells = model.detector.cells(features, boxes, 7).split([len(b) for b in boxes])
    maps = [torch.cat([m[n].flatten() for m in features.maps]) for n in range(len(clips))]
    return list(zip(cells, maps, strict=True))


def test_table_four_is_tested_with_two_to_five_supports() -> None:
    for row in compfeat.TABLE_4.values():
        assert [way.window.context for way in row.evaluations.values() if way.window] == [2, 3, 4, 5]
    assert compfeat.TABLE_4["random-2"].evaluations["4 supports"].paper == {"AP": 28.4}


def test_figures_of_one_system_agree_between_tables() -> None:
    assert compfeat.TABLE_3["cm+fda+oda"].paper["AP"] == compfeat.TABLE_4["random-2"].paper["AP"] == 28.4


# videos and images together


@pytest.fixture
def mixed(tmp_path: Path) -> WithImages:
    world = Synthetic(height=48, width=64, frames=3)
    videos = generate(world, 0, 2)
    renamed = VideoSet(videos=videos.videos, classes=YTVIS_2019)  # what is shown does not matter
    ytvis.write_set(tmp_path / "train.json", renamed, suffix=".png")
    for video in videos.videos:
        folder = tmp_path / "JPEGImages" / video.id
        folder.mkdir(parents=True)
        for t in range(len(video)):
            _write(folder / f"{t:05d}.png", video.frames[t].permute(1, 2, 0).numpy())
    square = [[4, 4, 40, 4, 40, 30, 4, 30]]
    objects = [
        {
            "id": n,
            "image_id": 1,
            "category_id": c,
            "segmentation": square,
            "area": 900,
            "bbox": [4, 4, 36, 26],
            "iscrowd": 0,
        }
        for n, c in ((1, 18), (2, 74))
    ]
    document = {
        "images": [{"id": 1, "file_name": "1.png", "height": 48, "width": 64}],
        "annotations": objects,
        "categories": [{"id": 18, "name": "dog"}, {"id": 74, "name": "mouse"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(document))
    (tmp_path / "images").mkdir()
    _write(tmp_path / "images" / "1.png", np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    data = WithImages().override(
        f"videos.annotations={tmp_path / 'train.json'}", f"images.annotations={tmp_path / 'coco.json'}"
    )
    assert isinstance(data, WithImages)
    return data


def _write(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(image).save(path)


def test_images_join_the_videos_under_the_videos_classes(mixed: WithImages) -> None:
    joined = mixed.read()
    assert [len(video) for video in joined.videos] == [3, 3, 1]
    dog, mouse = joined.videos[2].tracks or ()
    assert joined.classes[dog.label] == "dog"
    assert mouse.ignore  # a computer's mouse is none of the videos' classes


def test_images_are_set_in_motion_and_videos_are_left_as_they_are(mixed: WithImages) -> None:
    row = compfeat.TABLE_2["frame"]
    clips = ClipDataset(mixed.read(), row.sampler, row.transforms[:1], 0, keep_ignored=True)
    kinds = set()
    for n in range(6):
        one, place = clips[n], clips.locate(n)
        assert len(one) == 4
        video: Video = clips.videos.videos[place.video]
        still = len(video) == 1
        kinds.add(still)
        if still:
            assert not torch.equal(one.frames[0], one.frames[1])
        else:
            assert all(torch.equal(f, video.frames[int(t)]) for f, t in zip(one.frames, one.index, strict=True))
    assert kinds == {True, False}


def test_without_its_images_a_row_says_what_is_wanted(mixed: WithImages) -> None:
    with pytest.raises(ConfigError, match=r"data\.annotations=PATH"):
        Experiment.from_tree(
            {**compfeat.TABLE_1["baseline"].model_dump(mode="json"), "data": {"kind": "with_images"}}
        ).data.read()
