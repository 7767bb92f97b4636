"""The detector for CPUs: anchors and codes against loops, what learns, and the public weights against a restatement."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.ops import box_iou

from tubelet.core.types import Clip
from tubelet.models.inputs import Images
from tubelet.models.rcnn.detectors.detector import Detections, Features, Targets
from tubelet.models.rcnn.detectors.one_stage import candidates, regions_to_learn, suppressed
from tubelet.models.rcnn.detectors.ssdlite import SSDLite, SSDLiteConfig, anchor_boxes, decode, detection_losses, encode
from tubelet.models.rcnn.model import MaskTrackRCNN
from tubelet.models.weights import start_from
from tubelet.models.weights.key_maps import COCO_IDS

Build = Callable[..., MaskTrackRCNN]
MakeClip = Callable[..., Clip]

SHAPES = [torch.Size((n, n)) for n in (19, 10, 5, 3, 2, 1)]  # of a 300 x 300 input
CPU = torch.device("cpu")


def truth(*objects: tuple[float, float, float, float, int], crowds: tuple[tuple[float, ...], ...] = ()) -> Targets:
    rows = torch.tensor(objects, dtype=torch.float32).view(-1, 5)
    return Targets(
        boxes=rows[:, :4],
        labels=rows[:, 4].long(),
        ids=torch.arange(len(rows)),
        masks=torch.zeros(len(rows), 8, 8),
        scale=torch.ones(4),
        ignored=torch.tensor(crowds, dtype=torch.float32).view(-1, 4),
    )


def blank(count: int = 1) -> Images:
    pixels = torch.randn(count, 3, 300, 300, generator=torch.Generator().manual_seed(0))
    return Images(pixels, [(300, 300)] * count, torch.ones(count, 4))


# anchors


def anchors_by_loops(sizes: list[tuple[int, int]]) -> Iterator[tuple[float, float, float, float]]:
    """Centre x, centre y, width, height, as the weights' layout tells."""
    scales = [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]
    for i, (height, width) in enumerate(sizes):
        if i == 0:
            kinds = [(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)]
        else:
            kinds = [(scales[i], ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
            kinds += [(math.sqrt(scales[i] * scales[i + 1]), 1.0)]
        for row in range(height):
            for column in range(width):
                for scale, ratio in kinds:
                    root = math.sqrt(ratio)
                    yield (column + 0.5) / width, (row + 0.5) / height, scale * root, scale / root


def test_a_300_pixel_input_has_1917_anchors() -> None:
    assert anchor_boxes(SHAPES, CPU).shape == (1917, 4)
    detector = SSDLiteConfig().build(3).eval()
    features = detector.extract(blank())
    assert [tap.shape[-2:] for tap in features.taps] == SHAPES
    assert [m.shape[-2:] for m in features.maps] == [torch.Size((n, n)) for n in (38, 19)]
    assert detector.strides == [8, 16]
    logits, codes = detector.predict(features)
    assert (logits.shape, codes.shape) == ((1, 1917, 3), (1, 1917, 4))


@pytest.mark.parametrize("sizes", [[(n, n) for n in (19, 10, 5, 3, 2, 1)], [(4, 7), (2, 4), (1, 2)]])
def test_anchors_equal_loops_over_cells_and_kinds(sizes: list[tuple[int, int]]) -> None:
    found = anchor_boxes([torch.Size(size) for size in sizes], CPU)
    torch.testing.assert_close(found, torch.tensor(list(anchors_by_loops(sizes))), rtol=0, atol=1e-6)


# codes


@given(seed=st.integers(0, 10_000))
def test_encoding_is_the_inverse_of_decoding(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = anchor_boxes(SHAPES, CPU)[torch.randint(0, 1917, (30,), generator=generator)]
    codes = torch.randn(30, 4, generator=generator) * 3
    torch.testing.assert_close(encode(decode(codes, anchors), anchors), codes, rtol=1e-3, atol=1e-3)
    corner = torch.rand(30, 2, 2, generator=generator)
    boxes = torch.cat([corner.amin(1), corner.amax(1) + 0.01], 1)
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes, rtol=0, atol=1e-4)


def test_codes_move_and_stretch_the_anchor_y_first_in_tenths_and_fifths() -> None:
    anchor = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
    torch.testing.assert_close(decode(torch.zeros(1, 4), anchor), torch.tensor([[0.4, 0.35, 0.6, 0.45]]))
    down = decode(torch.tensor([[10.0, 0.0, 0.0, 0.0]]), anchor)  # one anchor height
    torch.testing.assert_close(down, torch.tensor([[0.4, 0.45, 0.6, 0.55]]))
    wide = decode(torch.tensor([[0.0, 0.0, 0.0, 5 * math.log(2)]]), anchor)
    torch.testing.assert_close(wide, torch.tensor([[0.3, 0.35, 0.7, 0.45]]))


def test_wild_codes_stay_finite() -> None:
    assert decode(torch.full((1, 4), 1e6), torch.tensor([[0.5, 0.5, 0.2, 0.2]])).isfinite().all()
    flat = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert encode(flat, torch.tensor([[0.5, 0.5, 0.2, 0.2]])).isfinite().all()


# losses


def test_detection_losses_equal_loops_over_anchors() -> None:
    generator = torch.Generator().manual_seed(0)
    anchors = anchor_boxes([torch.Size((6, 6)), torch.Size((3, 3))], CPU)
    logits = torch.randn(len(anchors), 2, generator=generator)
    codes = torch.randn(len(anchors), 4, generator=generator)
    size = torch.tensor([200.0, 100.0, 200.0, 100.0])
    target = truth((20, 10, 90, 50, 1), (120, 40, 180, 95, 0), (4, 80, 9, 84, 1))
    score, box, positives = detection_losses(logits, codes, anchors, target, size)

    corners = torch.cat([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], 1)
    boxes = target.boxes / size
    table = box_iou(corners, boxes)
    wanted = encode(boxes.repeat_interleave(len(anchors), 0), anchors.repeat(len(boxes), 1))
    owner_of = {int(table[:, k].argmax()): k for k in range(len(boxes))}  # the best anchor of an object learns it
    focal, smooth, count = 0.0, 0.0, 0
    for a in range(len(anchors)):
        best = float(table[a].max())
        owner = owner_of.get(a, int(table[a].argmax()) if best >= 0.5 else None)
        if owner is None and best >= 0.4:
            continue
        for k in range(2):
            p = logits[a, k].sigmoid().item()
            if owner is not None and target.labels[owner] == k:
                focal -= 0.25 * (1 - p) ** 2 * math.log(p)
            else:
                focal -= 0.75 * p**2 * math.log(1 - p)
        if owner is not None:
            count += 1
            smooth += F.smooth_l1_loss(codes[a], wanted[owner * len(anchors) + a], reduction="sum").item()
    assert positives == count >= 3
    assert score.item() == pytest.approx(focal, rel=1e-4)
    assert box.item() == pytest.approx(smooth, rel=1e-3)


@pytest.mark.parametrize(
    ("share", "counts"), [(0.2, "background"), (0.39, "background"), (0.41, "not"), (0.49, "not"), (0.51, "object")]
)
def test_an_anchor_is_object_from_a_half_and_background_below_four_tenths(share: float, counts: str) -> None:
    # within the object and as high, an anchor overlaps it by its share of the width; the last anchor is the best one
    anchors = torch.tensor([[0.5, 0.5, 0.8 * share, 0.4], [0.5, 0.5, 0.8, 0.4]])
    target = truth((0.1, 0.3, 0.9, 0.7, 0))
    score, _, positives = detection_losses(torch.zeros(2, 1), torch.zeros(2, 4), anchors, target, torch.ones(4))
    part = {"object": 0.25, "background": 0.75, "not": 0.0}[counts] + 0.25
    assert score.item() == pytest.approx(part * 0.25 * math.log(2), rel=1e-4)
    assert positives == (2 if counts == "object" else 1)


def test_what_lies_mostly_on_a_crowd_counts_neither_way() -> None:
    anchors = anchor_boxes([torch.Size((6, 6))], CPU)
    logits, codes = torch.zeros(len(anchors), 2), torch.zeros(len(anchors), 4)
    size = torch.full((4,), 100.0)
    free, _, _ = detection_losses(logits, codes, anchors, truth(), size)
    half, _, _ = detection_losses(logits, codes, anchors, truth(crowds=((0, 0, 50, 100),)), size)
    none, _, _ = detection_losses(logits, codes, anchors, truth(crowds=((-50, -50, 150, 150),)), size)
    assert half.item() == pytest.approx(free.item() / 2, rel=0.2)
    assert none == 0


def test_without_objects_there_is_only_the_loss_of_background() -> None:
    anchors = anchor_boxes([torch.Size((6, 6))], CPU)
    codes = torch.randn(len(anchors), 4).requires_grad_()
    score, box, positives = detection_losses(torch.zeros(len(anchors), 2), codes, anchors, truth(), torch.ones(4))
    assert score.item() == pytest.approx(len(anchors) * 2 * 0.75 * 0.25 * math.log(2), rel=1e-4)
    assert (box.item(), positives) == (0, 0)


def test_a_frozen_detector_has_no_losses_and_no_gradients_but_its_pyramid_learns() -> None:
    detector = SSDLiteConfig(frozen=True).build(3).train()
    learning = {name.split(".")[0] for name, p in detector.named_parameters() if p.requires_grad}
    assert learning == {"fpn"}
    some = blank()
    features = detector.extract(some)
    losses, _ = detector.losses(features, some, [truth((50, 50, 150, 150, 0))])
    assert losses == {}
    assert not any(tap.requires_grad for tap in features.taps)
    assert all(m.requires_grad for m in features.maps)


def test_the_trunks_norms_keep_their_statistics_in_training() -> None:
    detector = SSDLiteConfig().build(3).train()
    before = {k: v.clone() for k, v in detector.body.named_buffers()}
    detector.extract(blank())
    assert all(torch.equal(v, before[k]) for k, v in detector.body.named_buffers())


def test_regions_for_the_heads_are_truth_boxes_shaken_a_little_and_good_detections() -> None:
    detector = SSDLiteConfig(score_threshold=0.0).build(3).eval()
    target = truth((30, 40, 130, 190, 0), (160, 20, 290, 280, 2))
    torch.manual_seed(0)
    found = Detections(
        # on the first object; on nothing; on 0.4 of the first
        boxes=torch.tensor([[35.0, 45.0, 130.0, 190.0], [0.0, 0.0, 20.0, 20.0], [30.0, 40.0, 130.0, 100.0]]),
        scores=torch.eye(3),
    )
    samples = regions_to_learn(found, target, (300, 300), detector.config)
    overlap = box_iou(samples.boxes, target.boxes)
    assert sorted(samples.matched.tolist()) == [0, 0, 1]
    assert (overlap.gather(1, samples.matched[:, None]) > 0.5).all()
    assert samples.boxes.amin() >= 0
    assert samples.boxes.amax() <= 300


def test_regions_stay_in_the_image_and_keep_to_their_number() -> None:
    detector = SSDLiteConfig(jittered=4).build(3)
    many = truth(*[(10.0 * k, 0.0, 10.0 * k + 30, 300.0, 0) for k in range(20)])
    samples = regions_to_learn(
        Detections(boxes=torch.zeros(0, 4), scores=torch.zeros(0, 3)), many, (300, 300), detector.config
    )
    assert len(samples.boxes) == len(set(samples.matched.tolist())) == 4
    assert samples.boxes.amin() >= 0
    assert samples.boxes.amax() <= 300
    empty = regions_to_learn(
        Detections(boxes=torch.zeros(0, 4), scores=torch.zeros(0, 3)), truth(), (300, 300), detector.config
    )
    assert len(empty.boxes) == 0


# at test


def suppressed_by_loops(boxes: Tensor, scores: Tensor, config: SSDLiteConfig) -> list[int]:
    best, labels = scores.amax(1), scores.argmax(1)
    kept: list[int] = []
    for i in best.argsort(descending=True, stable=True).tolist():
        rivals = [j for j in kept if config.suppress == "across_classes" or labels[i] == labels[j]]
        if best[i] > config.score_threshold and all(
            box_iou(boxes[i][None], boxes[j][None]).item() <= config.nms for j in rivals
        ):
            kept.append(i)
    return kept[: config.max_detections]


@pytest.mark.parametrize("suppress", ["per_class", "across_classes"])
def test_detections_are_the_best_that_do_not_cover_one_another(suppress: Any) -> None:
    config = SSDLiteConfig(suppress=suppress, score_threshold=0.3, nms=0.4, max_detections=7)
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(60, 2, 2, generator=generator) * 100
    boxes, scores = torch.cat([corner.amin(1), corner.amax(1)], 1), torch.rand(60, 3, generator=generator) * 0.7
    detector = config.build(3)
    (best,) = candidates(scores.logit()[None], boxes[None], detector.config)
    found = suppressed(best.scores, best.codes, config)
    kept = suppressed_by_loops(boxes, scores, config)
    assert torch.equal(found.boxes, boxes[kept])
    torch.testing.assert_close(found.scores, scores[kept])


def test_calibrated_scores_are_a_line_over_the_logits() -> None:
    torch.manual_seed(0)
    plain = SSDLiteConfig(score_threshold=0.0, nms=1.0, max_detections=400).build(3).eval()
    torch.manual_seed(0)
    tuned = SSDLiteConfig(score_threshold=0.0, nms=1.0, max_detections=400, calibration=(2.0, 0.5)).build(3).eval()
    some = blank()
    (raw,), (scaled,) = (d.detect(d.extract(some), some) for d in (plain, tuned))
    torch.testing.assert_close(scaled.scores, (2 * raw.scores.logit() + 0.5).sigmoid(), rtol=1e-3, atol=1e-5)


# the public weights


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    path = shared / "weights" / "ssdlite_mobilenetv2_coco.safetensors"
    if not path.is_file():
        pytest.skip("the public SSDLite weights are not here")
    return path


@pytest.fixture(scope="module")
def detector(weights: Path, small_config: Any) -> SSDLite:
    config = small_config.override('detector={"kind": "ssdlite", "score_threshold": 0.4}')
    model = config.build(tuple(map(str, COCO_IDS))).eval()
    fresh = start_from(model, str(weights))
    assert {name.split(".")[0] for name in fresh} == {"detector", "mask", "match"}
    assert {name.split(".")[1] for name in fresh if name.startswith("detector")} <= {"fpn", "standardise"}
    return model.detector


def restated(tensors: dict[str, Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [A, 91] and codes [A, 4] of one image, from the weights' layout alone."""
    body = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same", num_classes=0).eval()
    own = {k.removeprefix("body."): t.float() for k, t in tensors.items() if k.startswith("body.")}
    missing, unknown = body.load_state_dict(own, strict=False)
    assert not unknown
    assert not [k for k in missing if not k.endswith("num_batches_tracked")]
    kept: list[Tensor] = []
    hook = body.blocks[5][0].bn1.register_forward_hook(lambda _m, _i, out: kept.append(out))
    head = body.forward_features(pixels)
    hook.remove()
    taps = [kept[0], head]

    def convolve(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight, bias = tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float()
        if weight.shape[-1] == 3:  # depthwise, TensorFlow's SAME
            total = max((math.ceil(x.shape[-1] / stride) - 1) * stride + 3 - x.shape[-1], 0)
            x = F.pad(x, [total // 2, total - total // 2] * 2)
            return F.conv2d(x, weight, bias, stride, groups=x.shape[1])
        return F.conv2d(x, weight, bias)

    for i in range(4):
        x = convolve(taps[-1], f"extra.{i}.pw").clamp(0, 6)
        x = convolve(x, f"extra.{i}.dw", stride=2).clamp(0, 6)
        taps.append(convolve(x, f"extra.{i}.pw2").clamp(0, 6))
    rows: dict[str, list[Tensor]] = {"cls": [], "box": []}
    for i, tap in enumerate(taps):
        for kind, width in (("cls", 91), ("box", 4)):
            out = convolve(convolve(tap, f"{kind}.{i}.dw").clamp(0, 6), f"{kind}.{i}.pw")
            rows[kind].append(out[0].permute(1, 2, 0).reshape(-1, width))
    return torch.cat(rows["cls"]), torch.cat(rows["box"])


def photographs(shared: Path, count: int) -> list[tuple[Tensor, list[dict[str, Any]]]]:
    """Images with a large object each, and their annotations."""
    folder = shared / "data" / "coco_instances"
    document = json.loads((folder / "instances.json").read_text())
    chosen = []
    for image in document["images"]:
        own = [a for a in document["annotations"] if a["image_id"] == image["id"] and not a.get("iscrowd")]
        large = [a for a in own if a["area"] > 0.15 * image["height"] * image["width"]]
        if len(own) <= 3 and large:
            frame = decode_image(str(folder / "images" / image["file_name"]), ImageReadMode.RGB)
            chosen.append((frame, large))
        if len(chosen) == count:
            break
    return chosen


def test_public_weights_give_the_logits_and_codes_of_their_layout(
    weights: Path, detector: SSDLite, shared: Path
) -> None:
    tensors = load_file(weights)
    ((frame, _),) = photographs(shared, 1)
    with torch.no_grad():
        images = detector.config.input.prepare([frame[None]])
        assert -1 <= images.pixels.amin() < images.pixels.amax() <= 1
        logits, codes = detector.predict(detector.extract(images))
        their_logits, their_codes = restated(tensors, images.pixels)
    assert their_logits.shape == (1917, 91)
    torch.testing.assert_close(logits[0], their_logits[:, list(COCO_IDS)], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(codes[0], their_codes, rtol=1e-4, atol=1e-4)


def test_public_weights_find_and_name_large_objects_in_photographs(detector: SSDLite, shared: Path) -> None:
    right = 0
    some = photographs(shared, 6)
    for frame, objects in some:
        with torch.no_grad():
            images = detector.config.input.prepare([frame[None]])
            features: Features = detector.extract(images)
            (found,) = detector.detect(features, images)
        boxes = found.boxes / images.scales[0]
        for one in objects:
            x, y, w, h = one["bbox"]
            overlap = box_iou(boxes, torch.tensor([[x, y, x + w, y + h]]))[:, 0]
            named = found.labels == COCO_IDS.index(one["category_id"])
            if (named & (overlap > 0.5)).any():
                right += 1
                break
    assert right >= 5
