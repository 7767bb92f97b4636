"""Rows of VidEoMT: sizes and rates as published, that all of it learns in a batch, and that a training resumes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tubelet.core.types import Clip, Tracks
from tubelet.models.backbones import BackboneConfig
from tubelet.models.videomt.model import VidEoMT, VidEoMTConfig
from tubelet.models.weights import hub, start_from
from tubelet.recipes import videomt
from tubelet.recipes.experiment import Experiment, Generated
from tubelet.recipes.small import SYSTEMS
from tubelet.training.log import read_metrics
from tubelet.training.loop import TrainConfig

every_row = pytest.mark.parametrize("name", videomt.RECIPES)
TINY = (
    "encoder.channels=32",
    "encoder.layers=4",
    "encoder.query_layers=2",
    "encoder.heads=4",
    "encoder.size=[64, 96]",
    "input.resize.height=64",
    "input.resize.width=96",
    "queries=6",
    "criterion.points=50",
)
SHORT = (
    "data.videos=3",
    "data.world.height=64",
    "data.world.width=96",
    "data.world.frames=4",
    "init=none",
    "sampler.frames=3",
    *(f"model.{override}" for override in TINY),
    "model.encoder.trunk=null",
    "train.iterations=4",
    "train.batch_size=2",
    "train.log_every=1",
    "train.precision=fp32",
    "optim.parts={}",
)


def clip(frames: int = 3) -> Clip:
    """Two squares in noise, of which one is absent from the second frame."""
    noise = torch.randint(0, 256, (frames, 3, 64, 96), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    masks = torch.zeros(2, frames, 64, 96, dtype=torch.uint8)
    masks[0, :, 5:40, 10:50] = 1
    masks[1, :, 30:60, 60:90] = 1
    masks[1, 1] = 0
    index = torch.arange(frames)
    truth = Tracks(ids=torch.tensor([1, 2]), scores=torch.eye(3)[:2], masks=masks, index=index)
    return Clip(frames=noise, index=index, key=torch.ones(frames, dtype=torch.bool), tracks=truth)


@every_row
def test_a_row_has_the_published_sizes_and_figures(name: str) -> None:
    row = videomt.RECIPES[name]
    assert isinstance(row.model, VidEoMTConfig)
    shape = row.model.encoder
    sizes = {"s": (384, 12, 3, 6), "b": (768, 12, 3, 12), "l": (1024, 24, 4, 16)}
    assert (shape.channels, shape.layers, shape.query_layers, shape.heads) == sizes[name[-1]]
    assert (row.model.queries, shape.patch, shape.size) == (200, 16, (640, 640))
    if row.paper:
        _, data, size = name.split("/")
        full = {"s": "small", "b": "base", "l": "large"}[size]
        published = hub.listed(f"tue-mps/videomt-dinov2-{full}-{data}")
        assert published is not None
        assert published.ap == row.paper["AP"]


@every_row
def test_the_training_is_the_published_one(name: str) -> None:
    row = videomt.RECIPES[name]
    assert (row.sampler.frames, row.sampler.reach, row.train.batch_size) == (5, 2, 8)
    with torch.device("meta"):
        model = row.model.build(tuple(f"class {n}" for n in range(40)))
    optimizer = row.optim.build(model)

    def rates(step: int) -> dict[str, float]:
        row.optim.set_rate(optimizer, step, row.train.iterations)
        return {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}

    last = row.model.encoder.layers - 1
    falling = (1 - 1000 / row.train.iterations) ** 0.9
    body = "network.backbone.body"
    full = rates(1000)
    assert full["network.query.weight"] == pytest.approx(1e-4 * falling)
    assert full[f"{body}.blocks.{last}.norm1.weight"] == pytest.approx(1e-4 * falling)
    assert full[f"{body}.blocks.{last - 2}.norm1.weight"] == pytest.approx(1e-4 * falling * 0.36)
    assert full[f"{body}.pos_embed"] == pytest.approx(1e-4 * falling * 0.6 ** (last + 1))
    early = rates(250)
    falling = (1 - 250 / row.train.iterations) ** 0.9
    assert early["network.query.weight"] == pytest.approx(0.5e-4 * falling)
    assert early[f"{body}.norm.weight"] == pytest.approx(0.25e-4 * falling)


@pytest.mark.parametrize("name", ["videomt/ytvis2019/s", "videomt/ovis/l"])
def test_a_row_gives_each_parameter_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = videomt.RECIPES[name].model.override(*TINY).build(("dog", "cat", "car")).train()
    assert isinstance(model, VidEoMT)
    total = torch.stack(list(model([clip(), clip()]).values())).sum()
    assert total.isfinite()
    total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_the_small_one_gives_each_trained_parameter_a_gradient_and_starts_from_the_bundled_trunk() -> None:
    row = SYSTEMS["videomt"]
    model = row.model.build(("dog", "cat", "car")).train()
    assert not [name for name in start_from(model, row.init) if ".trunk." in name]
    total = torch.stack(list(model([clip()]).values())).sum()
    total.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert [n for n, p in model.named_parameters() if not p.requires_grad and ".trunk." not in n] == []


def test_masked_attention_ends_with_the_training_however_long_that_is() -> None:
    row = SYSTEMS["videomt"].override("train.iterations=70", "train.accumulate=2")
    model = row._with_its_length()
    assert isinstance(model, VidEoMTConfig)
    assert model.masking.batches == 140
    fixed = row.override("model.masking.batches=5")
    assert fixed._with_its_length() == fixed.model


def test_a_training_that_was_interrupted_resumes_to_the_bit(tmp_path: Path) -> None:
    row = SYSTEMS["videomt"].override(*SHORT)
    assert isinstance(row.data, Generated)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    row.run(whole, device="cpu", quiet=True)
    interrupted(row, halves, after=2)
    row.run(halves, device="cpu", quiet=True, resume=True)

    expected, found = load_file(whole / "model.safetensors"), load_file(halves / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert losses(halves) == losses(whole)
    assert int(expected["network.masking.num_batches_tracked"]) == 4


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(out / "metrics.jsonl") if "loss" in line]


def interrupted(row: Experiment, out: Path, after: int) -> None:
    """The checkpoint of a training that was stopped: what another run leaves after so many of its steps."""
    every = row.train.but(checkpoint_every=after)
    row.but(train=every).run(out, device="cpu", quiet=True)
    shutil.rmtree(out / "checkpoints" / f"step-{row.train.iterations:06d}")
    (out / "model.safetensors").unlink()


def test_plain_weights_of_dinov2_start_the_encoder_resized_to_its_patches(tmp_path: Path) -> None:
    """timm's own form: patches of 14 pixels on a grid of another size."""
    from safetensors.torch import save_file
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    plain = VisionTransformer(
        img_size=56,
        patch_size=14,
        embed_dim=32,
        depth=4,
        num_heads=4,
        num_classes=0,
        init_values=1e-5,
        reg_tokens=4,
        no_embed_class=True,
    )
    save_file(plain.state_dict(), tmp_path / "dinov2.safetensors")
    model = VidEoMTConfig().override(*TINY).build(("dog",))
    random = start_from(model, str(tmp_path / "dinov2.safetensors"))
    assert not [name for name in random if name.startswith("network.backbone.body.")]
    assert model.network.backbone.body.pos_embed.shape == (1, 4 * 6, 32)
    flat = plain.pos_embed.mean(1)
    torch.testing.assert_close(model.network.backbone.body.pos_embed.mean(1), flat, atol=0.01, rtol=0.2)


def test_a_trunk_is_a_choice() -> None:
    shape = SYSTEMS["videomt"].model
    assert isinstance(shape, VidEoMTConfig)
    assert isinstance(shape.encoder.trunk, BackboneConfig)
    assert VidEoMTConfig().encoder.trunk is None
    assert TrainConfig().iterations > 0
