"""Both decoders: who is independent of whom, sizes, heads, masks of attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.attention.ifr import RecurrentConfig
from tubelet.core.config import Config
from tubelet.models.mask2former.decoder import JointConfig, QueryDecoder, inside_masks
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.models.mask2former.pixel_decoder import Pixels
from tubelet.models.queries.prediction import QueryPrediction

Q, D, K, T = 5, 16, 3, 3
JOINT = JointConfig(layers=4, heads=2, feed_forward=16)
INTER = InterFrameConfig(layers=4, layer=RecurrentConfig(heads=2, feed_forward=16))
SYSTEMS = {"joint": JOINT, "inter_frame": INTER}


def decoder_of(config: Config, *overrides: str) -> QueryDecoder:
    torch.manual_seed(0)
    changed = config.override(*overrides)
    assert isinstance(changed, JointConfig | InterFrameConfig)
    return changed.build(D, Q, K)


def pixels(batch: int = 1, length: int = T, seed: int = 0) -> Pixels:
    made = torch.Generator().manual_seed(seed)
    frames = batch * length
    scales = [torch.randn(frames, D, h, w, generator=made) for h, w in ((2, 3), (4, 6), (8, 12))]
    return Pixels(torch.randn(frames, D, 16, 24, generator=made), scales)


def of_frames(given: Pixels, order: Tensor) -> Pixels:
    return Pixels(given.features[order], [scale[order] for scale in given.scales])


def masks(prediction: QueryPrediction, given: Pixels) -> Tensor:
    """Mask logits [B, T, Q, h w]."""
    return prediction.kernels @ given.features.flatten(2).unflatten(0, prediction.kernels.shape[:2])


@pytest.mark.parametrize(
    ("config", "size"), [(JointConfig(), 14_469_161), (InterFrameConfig(), 28_677_929 - 257)]
)  # the sigmoid heads of IFR have no row for "no object"
def test_the_published_sizes(config: JointConfig | InterFrameConfig, size: int) -> None:
    with torch.device("meta"):
        decoder = config.build(256, 100, 40)
    assert sum(p.numel() for p in decoder.parameters()) == size


@pytest.mark.parametrize("system", SYSTEMS)
def test_there_is_a_prediction_before_the_first_layer_and_after_each(system: str) -> None:
    decoder, given = decoder_of(SYSTEMS[system]), pixels(batch=2)
    every = decoder(given, T, every=True)
    assert len(every) == 5
    columns = K + (system == "joint")
    assert all(p.logits.shape == (2, Q, columns) and p.kernels.shape == (2, T, Q, D) for p in every)
    (last,) = decoder(given, T, every=False)
    assert torch.equal(last.logits, every[-1].logits)
    assert torch.equal(last.kernels, every[-1].kernels)


@pytest.mark.parametrize("system", SYSTEMS)
def test_permuting_queries_permutes_all_outputs(system: str) -> None:
    decoder, given, order = decoder_of(SYSTEMS[system]), pixels(), torch.tensor([3, 1, 4, 0, 2])
    before = decoder(given, T, every=True)
    with torch.no_grad():
        for embedding in (decoder.queries_features, decoder.queries_embedder):
            embedding.weight.copy_(embedding.weight[order])
    for old, new in zip(before, decoder(given, T, every=True), strict=True):
        torch.testing.assert_close(new.logits, old.logits[:, order], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(new.kernels, old.kernels[:, :, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("system", SYSTEMS)
def test_clips_of_a_batch_are_independent(system: str) -> None:
    decoder, given = decoder_of(SYSTEMS[system]), pixels(batch=2)
    (both,) = decoder(given, T, every=False)
    (second,) = decoder(given.at(slice(T, 2 * T)), T, every=False)
    torch.testing.assert_close(both.logits[1:], second.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both.kernels[1:], second.kernels, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "overrides", "equivariant"),
    [
        (INTER, (), False),
        (INTER, ("layer.recurrence=false",), True),
        (INTER, ("layer.recurrence=false", "layer.temporal_position=true"), False),
        (JOINT, (), False),
        (JOINT, ("temporal_position=false",), True),
    ],
)
def test_the_order_of_frames_matters_with_recurrence_or_a_code_of_time(
    config: Config, overrides: tuple[str, ...], equivariant: bool
) -> None:
    decoder, given, back = decoder_of(config, *overrides), pixels(), torch.tensor([2, 1, 0])
    turned_given = of_frames(given, back)
    (ahead,), (turned,) = decoder(given, T, every=False), decoder(turned_given, T, every=False)
    same_class = torch.allclose(ahead.logits, turned.logits, atol=1e-4)
    same_masks = torch.allclose(masks(ahead, given), masks(turned, turned_given).flip(1), atol=1e-3)
    assert (same_class, same_masks) == (equivariant, equivariant)


def test_with_one_layer_masks_do_not_know_later_frames_but_the_class_does() -> None:
    decoder, given = decoder_of(INTER, "layers=1"), pixels()
    (before,) = decoder(given, T, every=False)
    later = torch.arange(T) == 2
    changed = Pixels(
        given.features + later.view(-1, 1, 1, 1), [s * (1 + later.view(-1, 1, 1, 1)) for s in given.scales]
    )
    (after,) = decoder(changed, T, every=False)
    torch.testing.assert_close(masks(after, changed)[:, :2], masks(before, given)[:, :2], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(after.logits, before.logits)


def test_the_joint_decoder_has_one_kernel_for_all_frames() -> None:
    (prediction,) = decoder_of(JOINT)(pixels(), T, every=False)
    assert torch.equal(prediction.kernels[:, 0], prediction.kernels[:, 2])


def test_a_query_that_sees_no_token_of_a_frame_is_unblocked_there() -> None:
    """Mask logits below zero everywhere in one frame: routine for an absent object, and never a NaN."""
    for config in SYSTEMS.values():
        given = pixels()
        given.features[1] = 0
        decoder = decoder_of(config)
        with torch.no_grad():  # kernels whose every product is negative
            last = decoder.mask_predictor.mask_embedder[2][0]  # type: ignore[index]
            last.weight.zero_()
            last.bias.fill_(-1)
            given.features.abs_().add_(0.1)
        (prediction,) = decoder(given, T, every=False)
        assert not inside_masks(prediction.kernels, given.features.flatten(2)).any()
        assert prediction.logits.isfinite().all()
        assert prediction.kernels.isfinite().all()


def test_the_mask_of_resized_features_is_the_resized_mask() -> None:
    given = pixels()
    (prediction,) = decoder_of(JOINT)(given, T, every=False)
    level = decoder_of(JOINT).levels(given)[1]
    full = masks(prediction, given)[0].unflatten(-1, (16, 24))
    resized = F.interpolate(full, (4, 6), mode="bilinear", align_corners=False).flatten(2)
    torch.testing.assert_close((prediction.kernels @ level.features)[0], resized, atol=1e-5, rtol=1e-4)
    seen = inside_masks(prediction.kernels, level.features)[0]
    sure = resized.abs() > 1e-4
    assert torch.equal(seen[sure], (resized.sigmoid() >= 0.5)[sure])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("system", SYSTEMS)
def test_half_precision_and_extreme_features_give_no_nan(system: str, dtype: torch.dtype) -> None:
    given = pixels()
    extreme = Pixels(given.features * 1e4, [scale * 1e3 for scale in given.scales])
    with torch.autocast("cpu", dtype):
        predictions = decoder_of(SYSTEMS[system])(extreme, T, every=True)
    for prediction in predictions:
        assert prediction.logits.dtype == torch.float32
        assert prediction.logits.isfinite().all()
        assert prediction.kernels.isfinite().all()


def test_focal_heads_begin_with_a_hundredth_for_every_class() -> None:
    decoder = decoder_of(INTER)
    assert decoder.class_predictor.bias.sigmoid().tolist() == pytest.approx([0.01] * K, abs=1e-5)
    assert decoder_of(INTER, "classification=ce").class_predictor.out_features == K + 1


def test_the_attention_shown_of_a_joint_query_sums_to_one_over_the_frames() -> None:
    decoder, given = decoder_of(JOINT), pixels()
    looks = decoder.looks(given, T, query=2, t=1)
    assert [look.t for look in looks] == [0, 1, 2]
    assert float(sum(look.weights.sum() for look in looks)) == pytest.approx(1, abs=1e-5)
    assert looks[0].weights.shape == (2 * 3,)  # the fourth layer attends to the coarsest scale again


@pytest.mark.parametrize("override", ["recurrence=true", "recurrence=false", "mask_mode=multiplicative"])
def test_the_attention_shown_of_a_frame_query_is_in_its_frame_and_the_one_before(override: str) -> None:
    decoder, given = decoder_of(INTER, f"layer.{override}"), pixels()
    looks = decoder.looks(given, T, query=2, t=1)
    own, over = looks[:-T], looks[-T:]
    assert [look.t for look in own] == ([1, 1] if override == "recurrence=false" else [1, 1, 0])
    assert [look.t for look in over] == [0, 1, 2]
    for look in own[:2]:
        assert float(look.weights.sum()) == pytest.approx(1, abs=1e-5)
    assert all(0 < look.weights.sum() < 1 for look in own[2:])  # the share that goes to the frame before
    assert float(sum(look.weights.sum() for look in over)) == pytest.approx(1, abs=1e-5)


def test_nothing_is_before_the_first_frame() -> None:
    looks = decoder_of(INTER).looks(pixels(length=1), 1, query=0, t=0)
    assert [look.t for look in looks] == [0, 0, 0]


def test_of_a_long_clip_some_frames_are_shown_and_always_the_one_asked_about() -> None:
    looks = decoder_of(JOINT).looks(pixels(length=20), 20, query=0, t=13)
    assert len(looks) == 6
    assert 13 in [look.t for look in looks]
