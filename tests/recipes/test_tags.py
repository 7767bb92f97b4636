"""The tag-based recipes: every row of Table III takes away what it says, builds, learns and trains by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tubelet.core.types import Clip, Tracks
from tubelet.inference.predict import predict
from tubelet.models import weights
from tubelet.models.tags.model import TagConfig
from tubelet.recipes import find, names
from tubelet.recipes.experiment import Experiment
from tubelet.recipes.tags import DAVIS, GENERATED, PAPER_GENERATED, RECIPES, ROWS, row

SMALL = (
    "model.input_size=[32,48]",
    "model.channels=8",
    "model.bottleneck=8",
    "model.generator=4",
    "model.tag_features=4",
)
ENCODER = {
    "r2plus1d": ("model.encoder.width=4", "model.encoder.blocks=[1,1,1]"),
    "trunk": ("model.input_size=[48,80]", "model.encoder.widths=[4,4,4,8]"),
}
DECODER = "model.decoder.widths=[8,6,4]"


def small(recipe: Experiment) -> Experiment:
    assert isinstance(recipe.model, TagConfig)
    encoder = ENCODER[recipe.model.encoder.kind]
    return recipe.override(*SMALL, *encoder, *([DECODER] if recipe.model.decoder is not None else []))


def clip() -> Clip:
    frames = torch.randint(0, 256, (3, 3, 40, 60), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    masks = torch.zeros(2, 3, 40, 60, dtype=torch.bool)
    masks[0, :, 5:20, 5:25] = True
    masks[1, :, 10:38, 30:55] = True
    index = torch.arange(3)
    truth = Tracks(ids=torch.tensor([1, 2]), scores=torch.eye(3)[:2], masks=masks, index=index)
    return Clip(frames=frames, index=index, key=torch.ones(3, dtype=torch.bool), tracks=truth)


def test_both_systems_and_the_eleven_rows_are_there_with_the_papers_figures() -> None:
    assert set(RECIPES) <= set(names())
    assert find("tags/ytvis2019").paper["AP"] == 51.2
    assert find("tags/davis").paper == {"J&F": 74.3, "J": 72.2, "F": 76.4}
    rows = [find(name) for name in names() if name.startswith("tags/table3/")]
    assert len(rows) == 11
    for one in rows:
        assert one.paper["J&F"] == pytest.approx((one.paper["J"] + one.paper["F"]) / 2, abs=0.2)
        assert one.paper["J&F"] < DAVIS.paper["J&F"]


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_row_builds_and_gives_each_trainable_parameter_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = small(find(name)).model.build(("dog", "cat", "car")).train()
    sum(model([clip()]).values(), torch.zeros(())).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


CHANGED = {
    "without-spectra": {"loss"},
    "without-specter": {"loss"},
    "without-tempra": {"loss"},
    "without-temper": {"loss"},
    "without-spatio-temporal-attention": {"spatio_temporal"},
    "without-tag-attention": {"tag_attention"},
    "without-self-attention": {"self_attention"},
    "without-location-embedding": {"loc_embed"},
    "without-tag-attention-and-connector": {"tag_attention", "tag_link"},
    "without-self-attention-and-connector": {"self_attention", "self_link"},
    "without-both-decoder-and-connectors": {
        "tag_attention",
        "self_attention",
        "tag_link",
        "self_link",
        "decoder",
    },
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_differs_from_the_full_system_in_what_it_is_called_after(name: str) -> None:
    ours, full = find(f"tags/table3/{name}"), find("tags/davis")
    changed = {field for field in TagConfig.model_fields if getattr(ours.model, field) != getattr(full.model, field)}
    assert changed == CHANGED[name]
    assert (ours.sampler, ours.transforms, ours.optim, ours.train) == (
        full.sampler,
        full.transforms,
        full.optim,
        full.train,
    )


def test_the_main_recipes_have_the_papers_schedule() -> None:
    ytvis, davis = find("tags/ytvis2019"), find("tags/davis")
    assert ytvis.train.iterations == 100 * 2238 // 4
    assert davis.optim.schedule.at == (1050, 1350)  # type: ignore[union-attr]
    assert davis.model.window.length == 32  # type: ignore[union-attr]
    assert davis.evaluations["overlapping"].window is not None


def test_at_112_only_size_and_pool_differ() -> None:
    for name in ("tags/davis", "tags/ytvis2019"):
        model = find(f"{name}-112").model
        assert model.input_size == (112, 112)  # type: ignore[union-attr]
        assert not model.encoder.pool  # type: ignore[union-attr]


OURS = ("upsampling", "bottleneck_skip", "finer_maps", "tag_decoder", "tag_places", "tag_dim", "tag_range", "norm")


@pytest.mark.parametrize("name", [name for name in RECIPES if "trunk" not in name and "generated" not in name])
def test_the_papers_rows_have_none_of_our_switches_on(name: str) -> None:
    model, plain = find(name).model, TagConfig()
    assert isinstance(model, TagConfig)
    assert {switch: getattr(model, switch) for switch in OURS} == {switch: getattr(plain, switch) for switch in OURS}
    assert model.encoder.kind == "r2plus1d"
    assert (model.upsampling, model.tag_dim, model.tag_places) == ("transposed", 1, 0)
    assert model.loss.weight == 1


def test_classes_are_on_where_the_set_has_classes() -> None:
    on = {name: not find(name).model.agnostic for name in ("tags/ytvis2019", "tags/generated", "small/tags")}  # type: ignore[union-attr]
    assert all(on.values())
    assert find("tags/davis").model.agnostic  # type: ignore[union-attr]
    assert find("tags/davis-trunk").model.agnostic  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["full", "paper", "without-both-decoder-and-connectors"])
def test_a_row_trains_from_its_name_and_the_model_loads_and_predicts(name: str, tmp_path: Path) -> None:
    recipes = {"full": GENERATED, "paper": PAPER_GENERATED}
    recipe = small(recipes[name] if name in recipes else row(PAPER_GENERATED, name)).override(
        "data.videos=2",
        "data.world.frames=6",
        "sampler.frames=4",
        "train.iterations=2",
        "train.workers=0",
        "train.log_every=1",
    )
    recipe.run(tmp_path / "run", device="cpu")
    model = weights.load(tmp_path / "run", device="cpu")
    assert model.config == recipe.model
    video = recipe.data.read().videos[0]
    assert predict(model, video, threshold=0.0).length == 6
