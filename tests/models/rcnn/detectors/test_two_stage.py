"""The papers' detector: which anchors and regions learn, how losses are normalised, what is kept at test."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from tubelet.core.types import Clip
from tubelet.models.inputs import Images
from tubelet.models.rcnn.detectors.detector import Features, Samples, Targets
from tubelet.models.rcnn.detectors.two_stage import TwoStage, _anchor_labels, _per_anchor
from tubelet.models.rcnn.model import MaskTrackRCNN

Build = Callable[..., MaskTrackRCNN]

HEIGHT, WIDTH = 64, 96
EVERYTHING = ("detector.anchors_sampled=100000", "detector.regions_sampled=100000")


def truth(*objects: tuple[float, float, float, float, int], crowds: tuple[tuple[float, ...], ...] = ()) -> Targets:
    rows = torch.tensor(objects, dtype=torch.float32).view(-1, 5)
    return Targets(
        boxes=rows[:, :4],
        labels=rows[:, 4].long(),
        ids=torch.arange(len(rows)),
        masks=torch.zeros(len(rows), HEIGHT, WIDTH),
        scale=torch.ones(4),
        ignored=torch.tensor(crowds, dtype=torch.float32).view(-1, 4),
    )


def images(count: int = 1, seed: int = 0) -> Images:
    pixels = torch.randn(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    return Images(pixels, [(HEIGHT, WIDTH)] * count, torch.ones(count, 4))


def prepared(model: MaskTrackRCNN, count: int = 1) -> tuple[TwoStage, Images, Features]:
    detector, some = model.detector, images(count)
    assert isinstance(detector, TwoStage)
    return detector, some, detector.extract(some)


# anchors


def owners_by_loops(
    anchors: list[list[float]], objects: list[list[float]], inside: tuple[int, int] | None
) -> list[int | None]:
    """The object that each anchor learns, -1 for background, None for neither: an object is
    learned from an overlap of 0.7 on, and by its best anchors (ties all) from 0.3 on; below 0.3 is background."""
    table = box_iou(torch.tensor(anchors).view(-1, 4), torch.tensor(objects).view(-1, 4)).tolist()
    allowed = [inside is None or (min(a[:2]) >= 0 and a[2] <= inside[1] and a[3] <= inside[0]) for a in anchors]
    tops = [max((table[i][k] for i, ok in enumerate(allowed) if ok), default=0.0) for k in range(len(objects))]
    owners: list[int | None] = []
    for row, ok in zip(table, allowed, strict=True):
        best = max(row, default=0.0)
        best_of = [k for k, top in enumerate(tops) if top >= 0.3 and row[k] == top]
        if not ok:
            owners.append(None)
        elif best > 0.7 - 1e-7:  # overlaps are single precision
            owners.append(row.index(best))
        elif best_of:
            owners.append(best_of[0])
        else:
            owners.append(-1 if best < 0.3 else None)
    return owners


coordinate = st.integers(-6, 40).map(float)
corners = st.tuples(coordinate, coordinate, st.integers(4, 24), st.integers(4, 24)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@settings(max_examples=300)
@given(
    anchors=st.lists(corners, min_size=1, max_size=14),
    objects=st.lists(corners, max_size=3),
    inside=st.sampled_from([None, (32, 40)]),
)
def test_anchors_learn_what_the_paper_says(
    anchors: list[list[float]], objects: list[list[float]], inside: tuple[int, int] | None
) -> None:
    target = truth(*[(*box, 0) for box in objects])  # type: ignore[arg-type]
    labels, boxes = _anchor_labels(torch.tensor(anchors), target, inside, 0.3)
    for i, owner in enumerate(owners_by_loops(anchors, objects, inside)):
        assert labels[i] == (-1 if owner is None else 0 if owner < 0 else 1)
        if owner is not None and owner >= 0:
            assert boxes[i].tolist() == objects[owner]


def test_an_object_out_of_every_anchors_reach_changes_nothing_for_the_others() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 20.0], [30.0, 30.0, 40.0, 40.0]])
    alone, _ = _anchor_labels(anchors, truth((0, 0, 10, 11, 0)), (50, 50), 0.3)
    both, _ = _anchor_labels(anchors, truth((0, 0, 10, 11, 0), (45, 0, 50, 5, 0)), (50, 50), 0.3)
    assert alone.tolist() == both.tolist() == [1, -1, 0]


def test_anchors_on_a_crowd_learn_nothing_unless_they_hold_an_object() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0], [40.0, 40.0, 50.0, 50.0]])
    target = truth((0, 0, 10, 10, 0), crowds=((0, 0, 12, 12), (20, 20, 28, 28)))
    labels, _ = _anchor_labels(anchors, target, None, 0.3)
    assert labels.tolist() == [1, -1, 0]


def test_anchors_are_three_shapes_of_eight_strides_on_each_level(build: Build) -> None:
    detector, some, features = prepared(build())
    listed = ImageList(some.pixels, some.sizes)
    anchors = detector.rpn.anchor_generator(listed, features.maps)[0]
    counts = [3 * m.shape[-2] * m.shape[-1] for m in features.maps]
    assert len(features.maps) == 5
    assert len(anchors) == sum(counts)
    for level, part in enumerate(anchors.split(counts)):
        side = 32 * 2**level
        width, height = part[:3, 2] - part[:3, 0], part[:3, 3] - part[:3, 1]
        for k, ratio in enumerate((0.5, 1.0, 2.0)):  # height over width
            assert width[k].item() == pytest.approx(side / math.sqrt(ratio), abs=1)
            assert height[k].item() == pytest.approx(side * math.sqrt(ratio), abs=1)


# losses, with every anchor and region sampled so that nothing is left to chance


def test_proposal_losses_are_sums_over_the_sampled_anchors_divided_by_their_number(build: Build) -> None:
    detector, some, features = prepared(build(*EVERYTHING), count=2)
    targets = [truth((8, 8, 44, 40, 1), (50, 10, 90, 60, 0)), truth()]
    losses, _ = detector.losses(features, some, targets)
    scores, codes = detector.rpn.head(features.maps)
    flat = [_per_anchor(s, c) for s, c in zip(scores, codes, strict=True)]
    logits, codes = torch.cat([s for s, _ in flat], 1), torch.cat([c for _, c in flat], 1)
    anchors = detector.rpn.anchor_generator(ImageList(some.pixels, some.sizes), features.maps)
    count, score, box = 0, 0.0, 0.0
    for i, target in enumerate(targets):
        owners = owners_by_loops(anchors[i].tolist(), target.boxes.tolist(), (HEIGHT, WIDTH))
        for a, owner in enumerate(owners):
            if owner is not None:
                count += 1
                score += F.softplus(logits[i, a] if owner < 0 else -logits[i, a]).item()
            if owner is not None and owner >= 0:
                box += smooth_l1(codes[i, a], encoded(target.boxes[owner], anchors[i][a], (1, 1, 1, 1)), 1 / 9)
    assert losses["rpn_cls"].item() == pytest.approx(score / count, rel=1e-4)
    assert losses["rpn_box"].item() == pytest.approx(box / count, rel=1e-3)


def test_box_head_losses_are_means_over_all_sampled_regions(build: Build) -> None:
    detector, some, features = prepared(build(*EVERYTHING), count=2)
    targets = [truth((8, 8, 44, 40, 1), (50, 10, 90, 60, 0)), truth()]
    losses, samples = detector.losses(features, some, targets)
    with torch.no_grad():
        regions = [torch.cat([p, t.boxes]) for p, t in zip(detector.propose(features, some), targets, strict=True)]
        logits, codes = detector.classify(features, regions)
    owners = [box_iou(r, t.boxes) if len(t.boxes) else None for r, t in zip(regions, targets, strict=True)]
    cls, box, row, positives = 0.0, 0.0, 0, 0
    for table, target, own in zip(owners, targets, regions, strict=True):
        for r, region in enumerate(own):
            best, label = None, 0
            if table is not None and table[r].max() >= 0.5:
                best = int(table[r].argmax())
                label = int(target.labels[best]) + 1
            cls -= logits[row].log_softmax(0)[label].item()
            if best is not None:
                positives += 1
                wanted = encoded(target.boxes[best], region, (0.1, 0.1, 0.2, 0.2))
                box += smooth_l1(codes[row, 4 * label : 4 * label + 4], wanted, 1.0)
            row += 1
    assert positives >= 2  # the objects themselves are among the regions
    assert losses["cls"].item() == pytest.approx(cls / row, rel=1e-4)
    assert losses["box"].item() == pytest.approx(box / row, rel=1e-3)
    assert [len(s.boxes) for s in samples] == [positives, 0]


def smooth_l1(found: Tensor, wanted: list[float], beta: float) -> float:
    total = 0.0
    for x, y in zip(found.tolist(), wanted, strict=True):
        d = abs(x - y)
        total += 0.5 * d * d / beta if d < beta else d - 0.5 * beta
    return total


def encoded(box: Tensor, region: Tensor, stds: tuple[float, float, float, float]) -> list[float]:
    (x1, y1, x2, y2), (a1, b1, a2, b2) = box.tolist(), region.tolist()
    w, h = a2 - a1, b2 - b1
    codes = [
        ((x1 + x2) / 2 - (a1 + a2) / 2) / w,
        ((y1 + y2) / 2 - (b1 + b2) / 2) / h,
        math.log((x2 - x1) / w),
        math.log((y2 - y1) / h),
    ]
    return [c / s for c, s in zip(codes, stds, strict=True)]


# sampling


def regions_of(build: Build, *targets: Targets, overrides: tuple[str, ...] = ()) -> list[Samples]:
    detector, some, features = prepared(build(*overrides), count=len(targets))
    torch.manual_seed(1)
    return detector.losses(features, some, list(targets))[1]


def test_regions_for_the_heads_hold_their_object_by_half_and_are_a_quarter_at_most(build: Build) -> None:
    crowded = truth(*[(4 + 20 * x, 4 + 20 * y, 30 + 20 * x, 30 + 20 * y, 0) for x in range(3) for y in range(2)])
    (samples,) = regions_of(build, crowded, overrides=("detector.regions_sampled=20",))
    assert 1 <= len(samples.boxes) <= 5
    overlap = box_iou(samples.boxes, crowded.boxes)
    assert (overlap.gather(1, samples.matched[:, None]) >= 0.5).all()
    assert torch.equal(overlap.argmax(1), samples.matched)


def test_an_image_without_objects_gives_no_regions_to_the_heads_but_learns_background(build: Build) -> None:
    detector, some, features = prepared(build())
    losses, (samples,) = detector.losses(features, some, [truth()])
    assert (samples.boxes.shape, samples.matched.shape) == ((0, 4), (0,))
    assert losses["cls"] > 0
    assert losses["rpn_cls"] > 0
    assert losses["box"] == losses["rpn_box"] == 0


def test_what_lies_on_a_crowd_is_no_background(build: Build) -> None:
    everywhere = truth(crowds=((0, 0, WIDTH, HEIGHT),))
    detector, some, features = prepared(build(*EVERYTHING))
    regions = detector.propose(features, some)[0]
    free = int((box_iou(regions, everywhere.ignored)[:, 0] < 0.5).sum())
    boxes, owner = detector._sample(regions, everywhere)
    assert len(regions) > free
    assert len(boxes) == free
    assert (owner == -1).all()


def test_a_frame_that_is_all_crowd_still_gives_finite_losses(build: Build) -> None:
    whole = truth(crowds=((0, 0, WIDTH, HEIGHT), (0, 0, 48, 64), (48, 0, 96, 64), (0, 0, 96, 32), (0, 32, 96, 64)))
    detector, some, features = prepared(build("detector.proposals=1", "detector.proposals_per_level=1"))
    losses, _ = detector.losses(features, some, [whole])
    assert all(v.isfinite() for v in losses.values())


# at test


def test_proposals_are_the_best_200_at_test_and_in_training_alike(build: Build) -> None:
    detector, some, features = prepared(build())
    quiet = detector.propose(features, some)[0]
    detector.train()
    learning = detector.propose(features, some)[0]
    assert detector.rpn.training
    assert torch.equal(quiet, learning)
    assert 0 < len(quiet) <= 40
    detector.eval()


def test_detections_are_clipped_scored_and_apart(build: Build) -> None:
    model = build()
    detector, some, features = prepared(model, count=2)
    for found in detector.detect(features, some):
        assert 0 < len(found) <= 10
        assert found.boxes.amin() >= 0
        assert (found.boxes <= torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])).all()
        assert ((found.scores > 0).sum(1) == 1).all()  # a row holds its own class alone
        assert (found.confidence > 0.05).all()
        assert torch.equal(found.confidence, found.confidence.sort(descending=True).values)
        overlap = box_iou(found.boxes, found.boxes) - torch.eye(len(found))
        same = found.labels[:, None] == found.labels[None]
        assert (overlap[same] <= 0.5).all()


def test_a_score_threshold_that_nothing_reaches_leaves_no_detections(build: Build) -> None:
    detector, some, features = prepared(build("detector.score_threshold=1.0"))
    (found,) = detector.detect(features, some)
    assert (found.boxes.shape, found.scores.shape) == ((0, 4), (0, 3))


def test_batch_and_single_image_detect_the_same(build: Build) -> None:
    detector, some, features = prepared(build(), count=3)
    together = detector.detect(features, some)
    for i, found in enumerate(together):
        (alone,) = detector.detect(features.at(i), Images(some.pixels[i : i + 1], some.sizes[:1], some.scales[:1]))
        torch.testing.assert_close(found.boxes, alone.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=1e-5)


def test_anchors_are_in_full_precision_and_training_in_half_works(build: Build, make_clip: Callable[..., Clip]) -> None:
    model = build().train()
    clip = make_clip(((7, 0, 6, 6, 30),), ((7, 0, 8, 6, 30),))
    images = model._prepare([clip])
    listed = ImageList(images.pixels, images.sizes)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.detector.extract(images)
        assert features.taps[0].dtype == torch.bfloat16
        anchors = model.detector.rpn.anchor_generator(listed, features.taps)
        losses = model([clip])
    wanted = model.detector.rpn.anchor_generator(listed, [m.float() for m in features.taps])
    assert all(torch.equal(a, b) for a, b in zip(anchors, wanted, strict=True))
    assert all(loss.isfinite() for loss in losses.values())
