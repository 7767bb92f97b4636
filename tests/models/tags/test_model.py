"""The tag-based system as a whole: shapes, switches, gradients, bad input, clips that are linked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tubelet.core.errors import ConfigError
from tubelet.core.protocol import VideoSegmenter, Window
from tubelet.core.types import Clip, Tracks
from tubelet.inference.predict import predict, stream
from tubelet.models.tags.losses import TERMS
from tubelet.models.tags.model import TagConfig, TagModel
from tubelet.models.tags.network import TagOutput

Build = Callable[..., TagModel]
MakeClip = Callable[..., Clip]
TRUNK = (
    "encoder.kind=trunk",
    "encoder.backbone.name=mobilenetv2_050",
    "encoder.backbone.frozen_stages=0",
    "encoder.widths=[8,8,8]",
)
# all switches of the recipes that are to work, together
WORKING = (
    *TRUNK,
    "input_size=[48,80]",
    "upsampling=resize",
    "bottleneck_skip=true",
    "finer_maps=true",
    'tag_decoder={"widths": [8, 6, 4]}',
    "tag_dim=4",
    "tag_places=20",
    "norm=clip",
)


@pytest.mark.parametrize(("size", "pool"), [((224, 224), True), ((112, 112), False)])
def test_the_named_sizes_have_the_papers_shapes(size: tuple[int, int], pool: bool) -> None:
    with torch.device("meta"):
        network = TagConfig(input_size=size).override(f"encoder.pool={str(pool).lower()}").build(("a",) * 40).network
        answer = network(torch.zeros(1, 3, 32, *size))
        cells = network.encoder(torch.zeros(1, 3, 32, *size))[-1]
    assert cells.shape == (1, 256, 32, 14, 14)
    assert answer.tags.shape == (1, 1, 32, 112, 112)
    assert answer.logits.shape == (1, 41, 32, 112, 112)


@pytest.mark.parametrize("size", [(32, 48), (48, 48), (80, 112)])
@pytest.mark.parametrize("pool", ["true", "false"])
def test_any_multiple_of_16_goes_through(build: Build, make_clip: MakeClip, size: tuple[int, int], pool: str) -> None:
    model = build(f"input_size={list(size)}", f"encoder.pool={pool}")
    answer = model.look(make_clip())
    scale = 2 if pool == "true" else 1
    assert answer.tags.shape == (1, 1, 4, size[0] // scale, size[1] // scale)
    assert answer.logits.shape[-2:] == answer.tags.shape[-2:]


@pytest.mark.parametrize("size", ["[100,112]", "[16,16]", "[4096,112]"])
def test_another_size_is_refused_when_the_model_is_described(size: str) -> None:
    with pytest.raises(ConfigError, match="input_size"):
        TagConfig().override(f"input_size={size}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("tag_link=false", "self_link=false"), "no input"),
        (("decoder=null",), "agnostic"),
        (("tag_range=sigmoid",), "0.0526"),
        (("tag_places=20",), "tag_dim >= 2"),
    ],
)
def test_switches_that_contradict_each_other_are_one_line(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        TagConfig().override(*overrides)
    assert "\n" not in str(caught.value)


def test_a_model_without_classes_is_refused(build: Build) -> None:
    with pytest.raises(ConfigError, match="at least one class"):
        build(classes=())


def test_norms_of_the_clip_need_more_than_one_cell() -> None:
    with pytest.raises(ConfigError, match="norm=batch"):
        TagConfig().override("norm=clip", "input_size=[32,32]")


@pytest.mark.parametrize("overrides", [(), ("input_size=[48,48]", "encoder.pool=true")])
def test_with_norms_of_the_clip_training_and_test_are_alike(
    build: Build, make_clip: MakeClip, overrides: tuple[str, ...]
) -> None:
    model = build("norm=clip", *overrides)
    with torch.no_grad():
        for frames in (1, 4):
            test = model.eval().look(make_clip(frames=frames))
            train = model.train().look(make_clip(frames=frames))
            assert torch.equal(test.tags, train.tags)
    assert not any("running" in name for name in model.state_dict())


# training


@pytest.mark.parametrize("switches", [("agnostic=true",), WORKING])
@pytest.mark.parametrize(
    "labels", [(), (1,), (0, 2), (2, 2, 2), (0, -1), (-1,), (1,) * 20, tuple(n % 3 for n in range(25))]
)
def test_any_number_of_objects_gives_losses_and_gradients(
    build: Build, make_clip: MakeClip, labels: tuple[int, ...], switches: tuple[str, ...]
) -> None:
    model = build(*switches).train()
    losses = model([make_clip(labels), make_clip((0,), frames=4, first=7)])
    assert set(losses) == {*TERMS, "semantic"}
    assert all(loss.isfinite() and loss >= 0 for loss in losses.values())
    sum(losses.values(), torch.zeros(())).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("tag_attention=null",),
        ("self_attention=null",),
        ("tag_dim=3",),
        ("spatio_temporal=null", "loc_embed=false"),
        ("tag_range=sigmoid", "loss.gap=0.05"),
        ("agnostic=true", "tag_link=false", "self_link=false", "decoder=null"),
        ("upsampling=resize",),
        ("bottleneck_skip=true", "finer_maps=true"),
        ('tag_decoder={"widths": [8, 6, 4]}', "finer_maps=true", "upsampling=resize"),
        ("tag_dim=4", "tag_places=20"),
        TRUNK,
        WORKING,
    ],
)
def test_every_switch_builds_a_model_that_learns_with_all_of_it(
    build: Build, make_clip: MakeClip, overrides: tuple[str, ...]
) -> None:
    model = build(*overrides).train()
    sum(model([make_clip()]).values(), torch.zeros(())).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_clips_of_different_length_and_orientation_make_one_batch(build: Build, make_clip: MakeClip) -> None:
    model = build("loss.samples=20000")
    clips = [make_clip(frames=4), make_clip(frames=2), make_clip(size=(60, 40))]
    with torch.no_grad():
        together = model(clips)
        alone = [model([clip]) for clip in clips]
    for name, loss in together.items():
        assert float(loss) == pytest.approx(sum(float(one[name]) for one in alone) / 3, rel=0.05)


def test_repeated_frames_of_a_short_video_do_not_count(build: Build, make_clip: MakeClip) -> None:
    model = build()
    clip = make_clip(key=[True, True, False, False])
    assert clip.tracks is not None
    masks = clip.tracks.masks.clone()
    masks[:, 2:] = 1 - masks[:, 2:]
    tracks = Tracks(ids=clip.tracks.ids, scores=clip.tracks.scores, masks=masks, index=clip.index)
    other = Clip(frames=clip.frames, index=clip.index, key=clip.key, tracks=tracks)
    losses = []
    for one in (clip, other):
        torch.manual_seed(0)
        with torch.no_grad():
            losses.append({name: float(loss) for name, loss in model([one]).items()})
    assert losses[0] == losses[1]


def test_the_semantic_branch_teaches_the_tags_through_their_link_alone(build: Build, make_clip: MakeClip) -> None:
    for link, reaches in (("true", True), ("false", False)):
        model = build(f"tag_link={link}")
        last = model.network.generator[-1]
        model([make_clip()])["semantic"].backward()
        gradient = last.weight.grad
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) == reaches


# inference


def scripted(model: TagModel, tags: Tensor, foreground: Tensor, label: int = 0) -> TagOutput:
    """An answer with these tags [T, h, w], sure of its foreground [T, h, w]."""
    logits = torch.zeros(1, len(model.classes) + 1, *foreground.shape)
    logits[0, 0] = torch.where(foreground, -8.0, 8.0)
    logits[0, label + 1] = torch.where(foreground, 8.0, -8.0)
    return TagOutput(tags[None, None], logits)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_perfect_or_noisy_tags_give_the_objects_back(build: Build, noise: float, count: int) -> None:
    owners = torch.full((4, 40, 60), -1)
    for n in range(count):
        top, left = 10 * (n // 6), 10 * (n % 6)
        owners[:, top : top + 8, left : left + 8] = n
    tags = owners.float() * 3 + noise * torch.randn(owners.shape, generator=torch.Generator().manual_seed(0))
    model = build()
    found = model.group(scripted(model, tags, owners >= 0, label=2))
    assert len(found.masks) == count
    assert found.scores.argmax(1).tolist() == [2] * count
    assert (found.scores.amax(1) > 0.8).all()
    for n in range(count):
        assert any(torch.equal(mask > 0.5, owners == n) for mask in found.masks)


def divided(model: TagModel, classes: list[float], size: tuple[int, int] = (10, 12)) -> TagOutput:
    """An output whose cells all have the same class probabilities, background first, and the same tag."""
    probabilities = torch.tensor(classes).view(1, -1, 1, 1, 1).expand(-1, -1, 2, *size)
    return TagOutput(torch.zeros(1, 1, 2, *size), probabilities.log())


def test_an_object_whose_class_is_doubtful_is_foreground_by_what_is_not_background(build: Build) -> None:
    doubtful = [0.4, 0.2, 0.2, 0.2]  # each class is less probable than the background, all together are more
    model = build()
    found = model.group(divided(model, doubtful))
    assert found.masks.shape[0] == 1
    assert float(found.masks.min()) == pytest.approx(0.6, abs=1e-5)
    assert len(build("foreground=best_class").group(divided(model, doubtful)).masks) == 0


def test_soft_edges_keep_the_probability_of_cells_beside_an_object(build: Build) -> None:
    foreground = torch.tensor([0.1, 0.3, 0.4, 0.9, 0.8, 0.4, 0.2]).expand(1, 1, 1, 5, 7)
    for soft, expected in (("true", [0, 0, 0.4, 0.9, 0.8, 0.4, 0]), ("false", [0, 0, 0, 0.9, 0.8, 0, 0])):
        model = build(f"soft_edges={soft}", "agnostic=true")
        logits = torch.cat([1 - foreground, foreground], 1).log()
        masks = model.group(TagOutput(torch.zeros(1, 1, 1, 5, 7), logits)).masks
        assert masks[0, 0, 2].tolist() == pytest.approx(expected, abs=1e-5)


def test_tags_with_places_differ_by_place_before_anything_is_learned(build: Build, make_clip: MakeClip) -> None:
    clip = make_clip()
    without, with_places = (build("tag_dim=3", f"tag_places={n}").look(clip).tags for n in (0, 20))
    added = (with_places - without)[0, :, 0]  # [D, h, w]
    height, width = added.shape[1:]
    assert float(added[0, 0, -1] - added[0, 0, 0]) == pytest.approx(20, rel=1e-4)
    assert float(added[1, -1, 0] - added[1, 0, 0]) == pytest.approx(20 * height / width, rel=1e-4)
    assert float(added[2].abs().max()) < 1e-5


def test_nothing_in_the_foreground_is_no_object(build: Build, make_clip: MakeClip) -> None:
    model = build()
    found = model.group(scripted(model, torch.zeros(4, 32, 48), torch.zeros(4, 32, 48, dtype=torch.bool)))
    assert found.masks.shape == (0, 4, 32, 48)
    assert found.scores.shape == (0, 3)


def test_a_class_agnostic_model_says_nothing_of_classes(build: Build, make_clip: MakeClip) -> None:
    _, tracks = build("agnostic=true").step(build().start(), make_clip())
    assert tracks.scores.shape[1] == 3
    assert (tracks.scores == tracks.scores[:, :1]).all()


@pytest.mark.parametrize("switches", [(), ("interpolation=signed_distance",), WORKING])
@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("size", [(40, 60), (61, 33), (200, 37)])
def test_a_video_of_any_length_and_shape_is_predicted_whole(
    build: Build, frames: int, size: tuple[int, int], switches: tuple[str, ...]
) -> None:
    model = build("window.length=4", *switches)
    assert isinstance(model, VideoSegmenter)
    video = np.random.default_rng(0).integers(0, 256, (frames, *size, 3)).astype(np.uint8)
    for window in (None, Window(length=4, stride=2), Window(length=1)):
        prediction = predict(model, video, window=window, threshold=0.0)
        assert prediction.length == frames
        assert all(len(track.rles) == frames for track in prediction.tracks)
        assert all(rle is None or rle.size == size for track in prediction.tracks for rle in track.rles)


def test_only_key_frames_are_answered(build: Build, make_clip: MakeClip) -> None:
    _, tracks = build().step(build().start(), make_clip(key=[False, True, True, False]))
    assert tracks.index.tolist() == [1, 2]


class Scripted(TagModel):
    """Finds red and blue squares by colour; the tags of each clip start anywhere, and change their order."""

    turns = 0

    def look(self, clip: Clip) -> TagOutput:
        images = clip.frames[..., ::2, ::2]
        red, blue = (images[:, c] > 200 for c in (0, 2))
        self.turns += 1
        first, second = (0.0, 40.0) if self.turns % 2 else (40.0, 0.0)
        tags = torch.where(red, first, second) + 7 * self.turns
        return scripted(self, tags, red | blue)


def moving(frames: int) -> np.ndarray:
    video = np.full((frames, 40, 60, 3), 90, np.uint8)
    for t in range(frames):
        video[t, 4:14, 2 * t : 2 * t + 12] = (255, 0, 0)
        video[t, 22:36, 40 - 2 * t : 54 - 2 * t] = (0, 0, 255)
    return video


def linked(build: Build) -> Scripted:
    config = build().config
    torch.manual_seed(0)
    return Scripted(config, ("dog", "cat", "car")).eval()


@pytest.mark.parametrize("window", [Window(length=6, stride=3), Window(length=6, stride=6), Window(length=1)])
def test_objects_keep_their_identity_from_clip_to_clip(build: Build, window: Window) -> None:
    prediction = predict(linked(build), moving(18), window=window)
    assert [sum(rle is not None for rle in track.rles) for track in prediction.tracks] == [18, 18]
    frames = list(stream(linked(build), moving(18), window=window))
    assert all(frame.ids.tolist() == [0, 1] for frame in frames)


def test_what_a_spread_window_leaves_out_is_interpolated(build: Build) -> None:
    prediction = predict(linked(build), moving(18), window=Window(length=9, spread=True))
    assert [sum(rle is not None for rle in track.rles) for track in prediction.tracks] == [18, 18]


def test_tags_of_a_random_network_do_not_depend_on_the_other_clips_of_a_batch(
    build: Build, make_clip: MakeClip
) -> None:
    network = build().network
    pixels = torch.randn(2, 3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both, alone = network(pixels), network(pixels[1:])
    assert torch.allclose(both.tags[1], alone.tags[0], atol=1e-5)
    assert torch.allclose(both.logits[1], alone.logits[0], atol=1e-4)


def test_bfloat16_answers_like_float32(build: Build, make_clip: MakeClip) -> None:
    model, clip = build(), make_clip()
    with torch.inference_mode():
        exact = model.look(clip)
        model.precision = torch.bfloat16
        quick = model.look(clip)
    assert quick.tags.dtype == torch.float32
    assert float((quick.tags - exact.tags).abs().max()) < 0.05 * float(exact.tags.abs().max()) + 0.02
