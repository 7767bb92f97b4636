"""ObjProp and every row of its successor's Table 1: what each changes, how large it is, and that it learns and runs."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tubelet.core.types import Clip, Tracks
from tubelet.models.rcnn.detectors.two_stage import TwoStage
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.recipes import masktrack, objprop, objprop_attention
from tubelet.recipes.experiment import Experiment

CLASSES = ("dog", "cat", "car")
NECK = {"model.neck"}

CHANGES = {
    "baseline": set(),
    "tuning-1": {
        "init_recipe",
        "model.detector.backbone.name",
        "model.detector.box_layers",
        "model.match.layers",
        "model.mask.convs",
    },
    "tuning-2": {"model.detector.class_weight", "model.detector.positive_overlap"},
    "ordered-pairs": {"sampler.kind"},
    "additional-training": {"train.iterations"},
    "attention-neck": NECK,
    "attention-neck-ordered": NECK | {"sampler.kind"},
    "weighted-affinity": {"model.propagation.affinity.weight"},
    "weighted-affinity-shared": {"model.propagation.affinity.weight"},
}
MORE_PARAMETERS = {
    "tuning-1": 18_992_128 + 2 * 2_099_200 + 1_180_160,
    "attention-neck": 1_180_161,
    "attention-neck-ordered": 1_180_161,
    "weighted-affinity": 4 * 65_536,
    "weighted-affinity-shared": 65_536,
}
SMALL = (
    "detector.backbone.name=resnet18",
    "detector.channels=16",
    "detector.box_channels=32",
    "detector.input.resize.long=96",
    "detector.input.resize.short=64",
    "detector.proposals=40",
    "detector.proposals_per_level=40",
    "detector.anchors_sampled=100000",  # all of them, so that nothing is left to chance
    "detector.regions_sampled=100000",
    "detector.max_detections=5",
    "mask.channels=16",
    "match.channels=32",
    "propagation.channels=16",
)
every_row = pytest.mark.parametrize("row", list(objprop_attention.TABLE_1))
every_model = pytest.mark.parametrize(
    "name", ["objprop/ytvis2019", "objprop/ytvis2019-released", *objprop_attention.RECIPES]
)


def recipe(name: str) -> Experiment:
    return {**objprop.RECIPES, **objprop_attention.RECIPES}[name]


@cache
def _built(config: MaskTrackConfig) -> MaskTrackRCNN:
    torch.manual_seed(0)
    model = config.override(*SMALL).build(CLASSES)
    assert isinstance(model.detector, TwoStage)
    parts = model.detector.box_predictor, model.detector.rpn.head
    with torch.no_grad():  # at random every region scores alike; scaled, no order hangs on the last bit
        for layer, factor in ((parts[0].cls_score, 700), (parts[0].bbox_pred, 500), (parts[1].cls_logits, 1000)):
            layer.weight *= factor
    return model


def small(name: str) -> MaskTrackRCNN:
    return deepcopy(_built(recipe(name).model))


def clip(seed: int, frames: int, key: list[bool]) -> Clip:
    """Two objects that move over noise."""
    noise = torch.randint(0, 256, (frames, 3, 64, 96), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    masks = torch.zeros(2, frames, 64, 96, dtype=torch.uint8)
    for t in range(frames):
        left = 4 * seed + 6 * t
        masks[0, t, 10:40, left : left + 30] = 1
        masks[1, t, 30:60, 50 - left // 2 : 90 - left // 2] = 1
    index = torch.arange(frames)
    truth = Tracks(ids=torch.tensor([1, 2]), scores=torch.eye(3)[[seed % 3, 2]], masks=masks, index=index)
    return Clip(frames=noise, index=index, key=torch.tensor(key), tracks=truth)


def frame(video: Clip, t: int) -> Clip:
    """One frame of it, without truth."""
    return Clip(frames=video.frames[t : t + 1], index=video.index[t : t + 1], key=torch.tensor([True]))


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Dotted path -> value; what is optional and off counts as one value, and so does what is on."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for name, one in tree.items() for k, v in leaves(one, f"{path}.{name}".lstrip(".")).items()}


def differences(first: Experiment, second: Experiment) -> set[str]:
    one, other = (leaves(e.model_dump(mode="json", exclude={"about", "paper"})) for e in (first, second))
    return {path for path in one.keys() | other.keys() if one.get(path, ...) != other.get(path, ...)}


# what a row changes


@every_row
def test_a_row_differs_from_objprop_only_where_its_name_says(row: str) -> None:
    found = differences(objprop.YTVIS2019, objprop_attention.TABLE_1[row])
    if "neck" in row:
        assert any(path.startswith("model.neck.") for path in found)
        found = {"model.neck" if path.startswith("model.neck") else path for path in found}
    assert found == CHANGES[row]


def test_objprop_differs_from_masktrack_only_in_its_head_and_its_settings() -> None:
    found = differences(masktrack.YTVIS2019, objprop.YTVIS2019)
    assert {path for path in found if not path.startswith("model.propagation")} == {
        "model.detector.max_detections",
        "model.detector.proposals",
        "model.detector.proposals_per_level",
        "model.detector.score_threshold",
        "model.match.normalise_at_test",
        "model.min_frames",
        "init",
        "init_recipe",
    }
    assert masktrack.YTVIS2019.model.propagation is None


def test_the_released_code_differs_from_the_method_where_the_page_says() -> None:
    assert differences(objprop.YTVIS2019, recipe("objprop/ytvis2019-released")) == {
        "model.match_average",
        "model.propagation.at_test",
        "model.propagation.norm_bias",
        "model.propagation.renorm",
    }


def test_the_settings_are_the_papers() -> None:
    experiment = objprop.YTVIS2019
    detector = experiment.model.detector
    assert (detector.proposals, detector.score_threshold, detector.max_detections) == (1000, 0.001, 100)
    assert experiment.model.min_frames == 2
    assert experiment.optim.lr == 0.005
    assert experiment.optim.warmup == 500
    assert (experiment.train.batch_size, experiment.train.clip_norm) == (16, 35.0)
    epoch = experiment.train.iterations / 12
    assert experiment.optim.schedule.at == (8 * epoch, 11 * epoch)
    longer = objprop_attention.TABLE_1["additional-training"]
    assert longer.train.iterations == 18 * epoch
    last = longer.optim.schedule.factor(longer.train.iterations - 1, longer.train.iterations)
    assert last * longer.optim.lr == pytest.approx(5e-5)


def test_the_neck_is_the_papers() -> None:
    for row in ("attention-neck", "attention-neck-ordered"):
        neck = objprop_attention.TABLE_1[row].model.neck
        assert (neck.kind, neck.gamma_init, neck.init, neck.consumers) == ("sta", 0.5, "xavier", "proposals")
        assert neck.at_test


@pytest.mark.parametrize("row", [row for row in objprop_attention.TABLE_1 if row != "weighted-affinity-shared"])
def test_a_row_carries_the_papers_figures_in_percent(row: str) -> None:
    figures = objprop_attention.TABLE_1[row].paper
    assert list(figures) == ["AP50", "AP75", "AR1", "AR10", "AP"]
    assert all(30 < value < 60 for value in figures.values())
    assert figures["AP50"] > figures["AR10"] > figures["AR1"] > figures["AP"]


def test_our_reading_of_the_weighted_affinity_has_no_figures_of_the_paper() -> None:
    published = objprop_attention.TABLE_1["weighted-affinity"]
    ours = objprop_attention.TABLE_1["weighted-affinity-shared"]
    assert (published.paper["AP"], ours.paper) == (30.82, {})
    for row, weight in ((published, "per_slot"), (ours, "shared")):
        assert isinstance(row.model, MaskTrackConfig)
        assert row.model.propagation is not None
        assert row.model.propagation.affinity.weight == weight


# size


@every_model
def test_a_model_has_as_many_parameters_as_the_papers(name: str) -> None:
    with torch.device("meta"):
        model = recipe(name).model.build(tuple(f"class {i}" for i in range(40)))
    more = MORE_PARAMETERS.get(name.rpartition("/")[2], 0)
    assert sum(p.numel() for p in model.parameters()) == 61_633_646 + more


# learning and running


@every_model
def test_every_trainable_parameter_gets_a_gradient(name: str) -> None:
    model = small(name).train()
    losses = model([clip(0, 2, [False, True])])
    assert {"prop_attention", "prop_mask"} < losses.keys()
    total = sum(losses.values(), torch.zeros(()))
    assert total.isfinite()
    total.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@every_model
def test_four_times_the_same_clip_is_the_clip(name: str) -> None:
    model = small(name).train()
    one = clip(0, 2, [False, True])
    single, four = model([one]), model([one] * 4)
    assert single.keys() == four.keys()
    # as published, each place in a batch has a matrix of its own
    of_places = {"prop_attention", "prop_mask"} if name.endswith("/weighted-affinity") else set()
    for loss in single.keys() - of_places:
        torch.testing.assert_close(four[loss], single[loss], rtol=1e-3, atol=1e-5, msg=loss)


@every_model
def test_the_order_of_the_clips_does_not_matter(name: str) -> None:
    model = small(name).eval()
    clips = [clip(seed, 2, [False, True]) for seed in range(4)]
    with torch.no_grad():
        first, second = model(clips), model(clips[::-1])
    for loss in first:
        torch.testing.assert_close(second[loss], first[loss], rtol=1e-3, atol=1e-5, msg=loss)


@every_model
def test_four_frames_at_a_time_give_what_single_frames_give(name: str) -> None:
    model = small(name).eval()
    video = clip(1, 4, [True] * 4)
    with torch.no_grad():
        _, together = model.step(model.start(), video)
        state, seen = model.start(), {}
        for t in range(4):
            state, tracks = model.step(state, frame(video, t))
            for identity, mask in zip(tracks.ids.tolist(), tracks.binary[:, 0], strict=True):
                seen[identity, t] = mask
    assert len(together) >= 2
    assert {identity for identity, _ in seen} == set(together.ids.tolist())
    for identity, masks in zip(together.ids.tolist(), together.binary, strict=True):
        for t, mask in enumerate(masks):
            assert_nearly_equal(mask, seen.get((identity, t), torch.zeros_like(mask)))


def assert_nearly_equal(first: Tensor, second: Tensor) -> None:
    assert float((first != second).float().mean()) < 1e-3


def test_propagation_fills_the_frames_that_the_detector_leaves_empty() -> None:
    found = {}
    for switch in (True, False):
        model = small("objprop/ytvis2019").eval()
        assert model.propagation is not None
        model.propagation.config = model.propagation.config.but(at_test=switch, threshold=0.0)
        video = clip(1, 2, [True, True])
        with torch.no_grad():
            state, first = model.step(model.start(), frame(video, 0))
            model.detector.config = model.detector.config.but(score_threshold=1.0)
            _, second = model.step(state, frame(video, 1))
        assert len(first) >= 2
        found[switch] = set(second.ids.tolist()), set(first.ids.tolist())
    assert found[True][0] == found[True][1]
    assert found[False][0] == set()
