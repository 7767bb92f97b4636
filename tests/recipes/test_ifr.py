"""Rows of Mask2Former-VIS and IFR: sizes as published, what each changes, and that all of it learns in a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tubelet.core.types import Clip, Tracks
from tubelet.evaluation.measures import FIGURES
from tubelet.models.mask2former.model import Mask2Former, Mask2FormerConfig
from tubelet.models.weights import hub
from tubelet.recipes import ifr, mask2former
from tubelet.recipes.experiment import Experiment

ROWS = {**mask2former.RECIPES, **ifr.RECIPES}
every_row = pytest.mark.parametrize("name", ROWS)
TINY = (
    "backbone.name=resnet18",
    "pixel_decoder.channels=32",
    "pixel_decoder.layers=1",
    "pixel_decoder.feed_forward=16",
    "decoder.layers=3",
    "queries=6",
    "criterion.points=50",
)
NETWORKS = ("mask2former_vis/table1/r50", "ifr/table1/r50", "ifr/figure4/0")


def tiny(name: str, *overrides: str) -> Mask2Former:
    torch.manual_seed(0)
    model = ROWS[name].model.override(*TINY, *overrides).build(("dog", "cat", "car"))
    assert isinstance(model, Mask2Former)
    return model


def clip(seed: int = 0) -> Clip:
    """Two frames of 64 x 96 with two squares, of which one is absent from the second."""
    frames = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    masks = torch.zeros(2, 2, 64, 96, dtype=torch.uint8)
    masks[0, :, 5 + seed : 40, 10:50] = 1
    masks[1, 0, 30:60, 60:90] = 1
    index = torch.arange(2)
    truth = Tracks(ids=torch.tensor([1, 2]), scores=torch.eye(3)[:2], masks=masks, index=index)
    return Clip(frames=frames, index=index, key=torch.ones(2, dtype=torch.bool), tracks=truth)


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for name, value in tree.items() for k, v in leaves(value, f"{path}.{name}".lstrip(".")).items()}


def changed(name: str, base: str) -> set[str]:
    """Fields of the training that differ, but for what a row says of itself."""
    ours, theirs = (
        leaves(ROWS[n].model_dump(mode="json", exclude={"about", "paper", "evaluations"})) for n in (name, base)
    )
    return {path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)}


# what the rows are


@every_row
def test_a_row_builds_for_40_classes(name: str) -> None:
    row = ROWS[name]
    assert isinstance(row.model, Mask2FormerConfig)
    with torch.device("meta"):
        model = row.model.build(tuple(f"class {n}" for n in range(40)))
    assert isinstance(model, Mask2Former)
    assert model.decoder.queries_features.weight.shape == (200 if name.endswith("-200") else 100, 256)
    assert model.decoder.class_predictor.out_features == (41 if "mask2former" in name else 40)


@pytest.mark.parametrize(
    ("name", "count"), [("mask2former_vis/table1/r50", 44_013_097), ("ifr/table1/r50", 58_221_608)]
)
def test_the_networks_have_as_many_parameters_as_counted_by_hand(name: str, count: int) -> None:
    with torch.device("meta"):
        model = ROWS[name].model.build(tuple(f"class {n}" for n in range(40)))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("table", ["table1", "table2"])
@pytest.mark.parametrize("backbone", ["r50", "r101", "swin-t", "swin-s", "swin-b", "swin-l-200"])
def test_the_two_systems_of_a_row_differ_in_their_decoders_alone(table: str, backbone: str) -> None:
    differing = changed(f"ifr/{table}/{backbone}", f"mask2former_vis/{table}/{backbone}")
    # and so less of a published model fits
    assert {path.split(".")[1] for path in differing - {"init_partial"}} == {"decoder"}


def test_the_two_data_sets_differ_in_the_schedule_alone() -> None:
    for name in (name for name in ROWS if "/table1/" in name):
        assert changed(name.replace("table1", "table2"), name) == {"train.iterations", "optim.schedule.at"}


def test_a_backbone_changes_its_size_at_test_and_its_start_too() -> None:
    fields = {"model.backbone.name", "model.input.resize.short", "init", "init_needs"}
    assert changed("ifr/table1/swin-b", "ifr/table1/r50") == fields
    assert changed("ifr/table1/r101", "ifr/table1/r50") == {"model.backbone.name"}
    assert changed("ifr/table1/swin-l-200", "ifr/table1/swin-l") == {"model.queries"}


@pytest.mark.parametrize("weight", ifr.SWEEP)
def test_the_sweep_changes_one_number(weight: float) -> None:
    differing = changed(f"ifr/figure4/{weight:g}", "ifr/table1/r50")
    assert differing == (set() if weight == 0.3 else {"model.decoder.cross_frame"})
    assert ROWS[f"ifr/figure4/{weight:g}"].override("train.seed=4").train.seed == 4


@every_row
def test_the_training_is_the_published_one(name: str) -> None:
    row = ROWS[name]
    optim = row.optim
    assert (optim.lr, optim.weight_decay, optim.parts, row.train.clip_norm) == (1e-4, 0.05, {"backbone": 0.1}, 0.01)
    rates = [round(optim.lr * optim.factor(step, row.train.iterations), 9) for step in (0, 3999, 7999)]
    assert rates == [1e-4, 1e-4, 1e-5]
    assert (row.sampler.frames, row.sampler.reach, row.train.batch_size) == (2, 20, 16)


def test_starts_are_models_that_the_hub_has_as_safetensors() -> None:
    loadable = {model.name for model in hub.PUBLISHED if model.revision}
    assert {row.init for row in ROWS.values()} - {None} <= loadable


@pytest.mark.parametrize("name", [name for name in ROWS if "/table3/" not in name])
def test_a_row_s_own_figures_are_those_of_ten_pairs_a_video(name: str) -> None:
    row = ROWS[name]
    assert row.evaluations["per video"].top == 10
    assert row.evaluations["per video"].paper == row.paper
    assert all(0 < value < 100 for test in row.evaluations.values() for value in test.paper.values())


@pytest.mark.parametrize(
    ("name", "figures"),
    [("ifr/table1/swin-l", (61.6, 61.8, 62.6)), ("ifr/table2/swin-l", (56.6, 56.3, 55.6))],
)
def test_table_4_and_augmentation_are_evaluations_of_swin_l(name: str, figures: tuple[float, ...]) -> None:
    tests = ROWS[name].evaluations
    short, long, augmented = tests["table4/T2"], tests["table4/T5"], tests["test-time augmentation"]
    assert short.window is not None
    assert long.window is not None
    assert (short.window.length, long.window.length, short.window.stride) == (2, 5, 1)
    assert augmented.views == 4
    assert (short.paper["AP"], long.paper["AP"], augmented.paper["AP"]) == figures
    others = {test for name, row in ROWS.items() if not name.endswith("swin-l") for test in row.evaluations}
    assert others == {"per video"}


@every_row
def test_a_row_survives_json(name: str) -> None:
    assert Experiment.model_validate_json(ROWS[name].model_dump_json()) == ROWS[name]


# what the networks do


@pytest.mark.parametrize("name", NETWORKS)
def test_each_trained_parameter_gets_a_gradient(name: str) -> None:
    model = tiny(name).train()
    total = sum(model([clip(), clip(1)]).values(), torch.zeros(()))
    assert total.isfinite()
    total.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", NETWORKS[:2])
def test_a_batch_of_four_gives_what_each_clip_gives_alone(name: str) -> None:
    model, clips = tiny(name).eval(), [clip(seed) for seed in range(4)]

    def predicted(some: list[Clip]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = model.pixel_decoder(model.backbone(model._prepare(some).pixels))
        prediction = model.decoder(pixels, 2, every=False)[-1]
        return prediction.logits, prediction.kernels

    with torch.inference_mode():
        together, alone = predicted(clips), [predicted([one]) for one in clips]
    for n, parts in enumerate(zip(*alone, strict=True)):
        torch.testing.assert_close(together[n], torch.cat(parts), rtol=1e-3, atol=1e-4)


def test_table_three_has_ten_rows_of_identities_on_two_data_sets() -> None:
    rows = {name: row for name, row in ifr.RECIPES.items() if name.startswith("ifr/table3/")}
    assert len(rows) == 10
    assert all(tuple(row.paper) == FIGURES["mot"] for row in rows.values())
    assert rows["ifr/table3/2021-mask2former-r50"].paper["MOTA"] == -1.6
    assert changed("ifr/table3/2019-ifr-swin-l", "ifr/table1/swin-l") == set()
    assert changed("ifr/table3/2021-mask2former-r50", "mask2former_vis/table2/r50") == set()


def test_rows_carry_all_figures_that_are_printed() -> None:
    for name, row in ROWS.items():
        if "/table1/" in name or "/table2/" in name:
            printed = FIGURES["ap"] if name.startswith("ifr/") else FIGURES["ap"][:3]
            assert tuple(row.paper) == printed, name
