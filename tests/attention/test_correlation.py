"""CompFeat's correlation tracker: each step against loops, and what the match matrix promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from tubelet.attention import correlation
from tubelet.attention.correlation import (
    CorrelationConfig,
    CorrelationMatch,
    box_average,
    gaussian,
    object_frame,
    object_object,
)
from tubelet.core.errors import ConfigError


def maps(seed: int, *size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def boxes_in(seed: int, number: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    limit = torch.tensor([width, height])
    corners = torch.rand(number, 2, 2, generator=generator).sort(1).values * limit
    return corners.flatten(1)


def tracker(seed: int = 0, maps_channels: int = 4, **fields: object) -> CorrelationMatch:
    torch.manual_seed(seed)
    return CorrelationConfig.model_validate({"resolution": 3, **fields}).build(maps_channels)


def scene(seed: int, n: int, m: int, channels: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Current regions, known regions, the frame's map, the current boxes."""
    regions = maps(seed, n, channels, 3, 3), maps(seed + 1, m, channels, 3, 3)
    return *regions, maps(seed + 2, channels, 6, 8), boxes_in(seed, n, 6, 8)


# equations


@given(seed=st.integers(0, 100), n=st.integers(0, 3), m=st.integers(0, 3))
def test_object_to_object_is_that_of_loops(seed: int, n: int, m: int) -> None:
    detections, references = maps(seed, n, 2, 3, 3), maps(seed + 1, m, 2, 3, 3)
    ours = object_object(detections, references)
    assert ours.shape == (n, m, 2)
    for i in range(n):
        for j in range(m):
            for c in range(2):
                products = [detections[i, c, y, x] * references[j, c, y, x] for y in range(3) for x in range(3)]
                torch.testing.assert_close(ours[i, j, c], sum(products) / 9)


def test_object_to_object_is_the_one_valid_cell_of_a_depth_wise_correlation() -> None:
    detections, references = maps(0, 2, 5, 7, 7), maps(1, 3, 5, 7, 7)
    ours = object_object(detections, references)
    for j in range(3):
        valid = torch.nn.functional.conv2d(detections, references[j][:, None], groups=5)  # [2, 5, 1, 1]
        torch.testing.assert_close(ours[:, j], valid[..., 0, 0] / 49)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_object_to_frame_is_that_of_loops(r: int) -> None:
    references, frame = maps(0, 2, 3, r, r), maps(1, 3, 4, 5)
    ours = object_frame(references, frame)
    assert ours.shape == (2, 3, 4, 5)
    before = (r - 1) // 2
    for j in range(2):
        for c in range(3):
            for y in range(4):
                for x in range(5):
                    wanted = torch.zeros(())
                    for v in range(r):
                        for u in range(r):
                            if 0 <= y + v - before < 4 and 0 <= x + u - before < 5:
                                wanted = wanted + references[j, c, v, u] * frame[c, y + v - before, x + u - before]
                    torch.testing.assert_close(ours[j, c, y, x], wanted)


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), n=st.integers(0, 4), m=st.integers(0, 3), reach=st.floats(0.5, 2.5))
def test_the_average_over_a_box_is_that_of_aligned_regions(seed: int, n: int, m: int, reach: float) -> None:
    features, boxes = maps(seed, m, 3, 6, 8), boxes_in(seed, n, 6, 8)
    boxes = (boxes - 4) * reach + 4  # over the border too
    ours = box_average(features, boxes, 14)
    assert ours.shape == (n, m, 3)
    for j in range(m):
        regions = roi_align(features[j : j + 1], [boxes], 7, 1.0, sampling_ratio=2, aligned=True)
        torch.testing.assert_close(ours[:, j], regions.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_the_score_of_a_pair_is_two_layers_over_the_sum_of_both_cues() -> None:
    match = tracker()
    current, known, frame, boxes = scene(0, 2, 3)
    logits = match(current, known, frame, boxes)
    assert match.conv1 is not None
    refined = torch.relu(match.conv1(object_frame(known, frame) / 9))
    for i in range(2):
        for j in range(3):
            region = roi_align(refined[j : j + 1], [boxes[i : i + 1]], 3, 1.0, sampling_ratio=2, aligned=True)
            v = object_object(current, known)[i, j] + region[0].mean((1, 2))
            torch.testing.assert_close(logits[i, j + 1], match.score(v)[0], rtol=1e-4, atol=1e-5)


def test_the_map_loss_is_the_mean_squared_error_of_loops() -> None:
    match = tracker(map_weight=2.0)
    _, known, frame, _ = scene(0, 0, 2)
    boxes = torch.tensor([[1.0, 1.0, 5.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    assert match.conv1 is not None
    assert match.conv2 is not None
    predicted = match.conv2(torch.relu(match.conv1(object_frame(known, frame) / 9)))[:, 0].sigmoid()
    target = gaussian(boxes, (6, 8))
    errors = [(predicted[j, y, x] - target[j, y, x]) ** 2 for j in range(2) for y in range(6) for x in range(8)]
    torch.testing.assert_close(match.map_loss(known, frame, boxes), 2 * sum(errors) / len(errors))


# invariants


@given(channel=st.integers(0, 4), seed=st.integers(0, 100))
def test_channels_of_a_correlation_do_not_mix(channel: int, seed: int) -> None:
    references, detections, frame = maps(seed, 2, 5, 3, 3), maps(seed + 1, 3, 5, 3, 3), maps(seed + 2, 5, 4, 6)
    silenced = references.clone()
    silenced[:, channel] = 0
    others = torch.arange(5) != channel
    for before, after, dim in (
        (object_object(detections, references), object_object(detections, silenced), 2),
        (object_frame(references, frame), object_frame(silenced, frame), 1),
    ):
        assert not after.select(dim, channel).any()
        torch.testing.assert_close(after.movedim(dim, 0)[others], before.movedim(dim, 0)[others])


@given(seed=st.integers(0, 1000))
def test_the_gaussian_peaks_with_exactly_one_where_the_centre_is(seed: int) -> None:
    boxes = boxes_in(seed, 3, 6, 8)
    target = gaussian(boxes, (6, 8))
    for box, image in zip(boxes, target, strict=True):
        x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
        assert image[y, x] == image.max() == 1


def test_the_gaussian_has_a_sixth_of_the_box_as_its_deviation_and_at_least_a_cell() -> None:
    image = gaussian(torch.tensor([[1.0, 8.0, 19.0, 10.0]]), (20, 20))[0]  # centre (10, 9), sigma (3, 1)
    for y in range(20):
        for x in range(20):
            wanted = math.exp(-((x - 10) ** 2) / 18 - (y - 9) ** 2 / 2)
            assert image[y, x].item() == pytest.approx(wanted, abs=1e-6)


def test_an_absent_object_has_an_empty_target() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.0, 0.0], [3.0, 2.0, 3.0, 5.0], [3.0, 5.0, 6.0, 5.0]])
    assert not gaussian(boxes, (6, 8)).any()


@given(n=st.integers(0, 4), m=st.integers(0, 5), seed=st.integers(0, 100), training=st.booleans())
def test_the_match_matrix_has_a_first_column_of_zeros_and_keeps_the_order_of_both_sides(
    n: int, m: int, seed: int, training: bool
) -> None:
    match = tracker(seed).train(training)
    current, known, frame, boxes = scene(seed, n, m)
    logits = match(current, known, frame, boxes)
    assert logits.shape == (n, m + 1)
    assert torch.equal(logits[:, 0], torch.zeros(n))
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(n, generator=generator), torch.randperm(m, generator=generator)
    turned = match(current[rows], known[columns], frame, boxes[rows])
    torch.testing.assert_close(turned[:, 1:], logits[rows][:, 1:][:, columns], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (0, 3), (2, 0), (0, 0)])
def test_gradients_reach_every_parameter_whatever_was_found(n: int, m: int) -> None:
    match = tracker()
    current, known, frame, boxes = scene(0, n, m)
    loss = match(current, known, frame, boxes).sum() + match.map_loss(known, frame, boxes_in(1, m, 6, 8))
    loss.backward()
    assert loss.isfinite()
    for parameter in match.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    if n and m:
        assert all(p.grad.any() for p in match.parameters() if p.grad is not None)


# the tracker and its host


def test_maps_that_are_made_once_serve_scores_and_loss() -> None:
    match = tracker()
    current, known, frame, boxes = scene(0, 2, 3)
    refined, targets = match.refine(known, frame), boxes_in(1, 3, 6, 8)
    torch.testing.assert_close(match(current, known, frame, boxes, refined), match(current, known, frame, boxes))
    torch.testing.assert_close(match.map_loss(known, frame, targets, refined), match.map_loss(known, frame, targets))


def test_many_references_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    match = tracker()
    inputs = scene(0, 2, 5)
    whole = match(*inputs)
    monkeypatch.setattr(correlation, "CHUNK", 2)
    torch.testing.assert_close(match(*inputs), whole)


def test_the_frame_can_be_left_out_altogether_or_at_test() -> None:
    current, known, frame, boxes = scene(0, 2, 3)
    without = tracker(frame_branch=False)
    assert without.map_loss(known, frame, boxes_in(0, 3, 6, 8)) == 0
    assert torch.equal(without(current, known, frame, boxes), without(current, known, frame + 1, boxes))
    training_only = tracker(frame_branch_at_test=False)
    for training in (True, False):
        training_only.train(training)
        same = torch.equal(training_only(current, known, frame, boxes), training_only(current, known, frame + 1, boxes))
        assert same is not training


def transparent(match: CorrelationMatch) -> CorrelationMatch:
    """Make conv1 the identity, so that `refine` shows what the correlation gave it, above zero."""
    assert match.conv1 is not None
    torch.nn.init.dirac_(match.conv1.weight)
    assert match.conv1.bias is not None
    torch.nn.init.zeros_(match.conv1.bias)
    return match


@pytest.mark.parametrize("average", [True, False])
def test_the_maps_are_means_over_the_references_positions_and_sums_where_that_is_switched_off(average: bool) -> None:
    match = transparent(tracker() if average else tracker(average_frame=False))
    _, known, frame, _ = scene(0, 0, 2)
    maps = match.refine(known, frame)
    for j in range(2):
        for c in range(4):
            for y in range(6):
                for x in range(8):
                    products = [
                        known[j, c, v, u] * frame[c, y + v - 1, x + u - 1]
                        for v in range(3)
                        for u in range(3)
                        if 0 <= y + v - 1 < 6 and 0 <= x + u - 1 < 8
                    ]
                    expected = sum(products, torch.zeros(())) / (9 if average else 1)
                    torch.testing.assert_close(maps[j, c, y, x], expected.relu())


def test_both_branches_have_one_scale() -> None:
    """An object that is seen again where it was: its region compared with itself, and its map read at its centre."""
    match = transparent(tracker())
    frame = maps(0, 4, 6, 8).abs()
    region = frame[None, :, 1:4, 2:5]
    centre = match.refine(region, frame)[:, :, 2, 3]
    torch.testing.assert_close(centre, object_object(region, region)[0])


def test_scores_can_start_near_zero_whatever_the_features_scale() -> None:
    current, known, frame, boxes = scene(0, 2, 3)
    usual, small = (tracker(score_std=std)(6 * current, 6 * known, 6 * frame, boxes) for std in (None, 0.001))
    assert small.abs().max() < 0.1 < usual.abs().max()


def test_memory_keeps_regions_as_they_are() -> None:
    regions = maps(0, 2, 4, 3, 3)
    assert torch.equal(tracker().describe(regions), regions)


def test_autocast_changes_nothing() -> None:
    match = tracker()
    current, known, frame, boxes = scene(0, 2, 3)
    targets = boxes_in(1, 3, 6, 8)
    plain = match(current, known, frame, boxes), match.map_loss(known, frame, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(match(current, known, frame, boxes), plain[0])
        assert torch.equal(match.map_loss(known, frame, targets), plain[1])


def test_the_tracker_has_the_stated_size() -> None:
    with torch.device("meta"):
        match = CorrelationConfig().build(256)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in match.named_children()}
    assert sizes["conv1"] + sizes["conv2"] == 590_337
    assert sizes["score"] == 66_049


def test_unknown_levels_are_refused() -> None:
    with pytest.raises(ConfigError):
        CorrelationConfig().override("level=P2")
