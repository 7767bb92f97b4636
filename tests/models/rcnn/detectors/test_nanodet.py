"""The anchor-free detector for CPUs: boxes and assignment against loops, what learns, and the public weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tubelet.core import boxes as box_ops
from tubelet.models.inputs import Images, InputConfig, KeepArea
from tubelet.models.rcnn.detectors.detector import Targets
from tubelet.models.rcnn.detectors.nanodet import (
    CellPrediction,
    NanoDet,
    NanoDetConfig,
    assign,
    contains,
    detection_losses,
)
from tubelet.models.rcnn.detectors.one_stage import MOST, clip, suppressed
from tubelet.models.weights.key_maps import from_nanodet_plus

WEIGHTS = Path(__file__).parents[5] / "shared" / "weights" / "nanodet_plus_m15_coco.safetensors"


def blank(count: int = 1, height: int = 64, width: int = 96) -> Images:
    pixels = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    return Images(pixels, [(height, width)] * count, torch.ones(count, 4))


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


def built(num_classes: int = 3, **fields: object) -> NanoDet:
    torch.manual_seed(0)
    return NanoDetConfig(size="m", **fields).build(num_classes)  # type: ignore[arg-type]


def boxes_of_cells(boxes: Tensor, stride: float = 8.0) -> CellPrediction:
    """Cells in the middle of boxes [A, 4] with the given sides, sharp distances, and no opinion of classes."""
    points = (boxes[:, :2] + boxes[:, 2:]) / 2
    distances = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], 1) / stride
    lower = distances.floor().long().clamp(0, 6)
    share = distances - lower
    bins = torch.full((len(boxes), 4, 8), 1e-9)
    bins.scatter_(-1, lower[..., None], (1 - share)[..., None].clamp(min=1e-9))
    bins.scatter_(-1, lower[..., None] + 1, share[..., None].clamp(min=1e-9))
    return CellPrediction(torch.zeros(len(boxes), 2), bins.log(), points, torch.full((len(boxes), 1), stride))


def test_boxes_equal_a_loop_over_cells() -> None:
    detector = built()
    with torch.no_grad():
        prediction = detector.predict(detector.eval().extract(blank()))
    boxes = prediction.boxes()[0]

    row = 0
    for stride in (8, 16, 32, 64):
        for i in range(-(-64 // stride)):
            for j in range(-(-96 // stride)):
                sides = [
                    stride * sum(n * float(p) for n, p in enumerate(prediction.bins[0, row, side].softmax(0)))
                    for side in range(4)
                ]
                expected = [j * stride - sides[0], i * stride - sides[1], j * stride + sides[2], i * stride + sides[3]]
                assert boxes[row].tolist() == pytest.approx(expected, abs=1e-3)
                row += 1
    assert row == len(boxes)


def test_only_channels_in_the_order_blue_green_red_reach_the_network() -> None:
    detector = built().eval()
    images = blank()
    with torch.no_grad():
        expected = detector._fused(detector._trunk(images.pixels[:, [2, 1, 0]]))
        assert torch.equal(detector.extract(images).taps[0], expected[0])


def test_the_boxes_of_candidates_are_those_of_all_cells() -> None:
    detector = built(score_threshold=0.0, max_detections=50).eval()
    images = blank(2)
    with torch.no_grad():
        features = detector.extract(images)
        prediction = detector.predict(features)
        for image, found in enumerate(detector.detect(features, images)):
            boxes = clip(prediction.at(image).boxes(), (64, 96))
            scores = prediction.logits[image].sigmoid()
            best = scores.amax(1).argsort(descending=True, stable=True)[:MOST]
            expected = suppressed(scores[best], boxes[best], detector.config)
            assert torch.equal(found.boxes, expected.boxes)
            assert len(found) > 10


def test_a_frozen_detector_has_no_losses_and_no_gradients() -> None:
    detector = built(frozen=True).train()
    features = detector.extract(blank())
    losses, (samples,) = detector.losses(features, blank(), [truth((8, 8, 40, 40, 1))])
    assert losses == {}
    assert samples.matched.tolist() == [0]
    assert not any(m.requires_grad for m in features.maps)


def test_every_parameter_of_a_trained_detector_gets_a_gradient() -> None:
    detector = built().train()
    losses, _ = detector.losses(detector.extract(blank()), blank(), [truth((8, 8, 40, 40, 1), (30, 10, 90, 60, 2))])
    torch.stack(list(losses.values())).sum().backward()
    without = [name for name, p in detector.named_parameters() if p.grad is None]
    assert without == []


def test_a_frozen_trunk_stays_while_the_rest_learns() -> None:
    detector = built(frozen_trunk=True).train()
    losses, _ = detector.losses(detector.extract(blank()), blank(), [truth((8, 8, 40, 40, 1))])
    torch.stack(list(losses.values())).sum().backward()
    without = {name.split(".")[0] for name, p in detector.named_parameters() if p.grad is None}
    assert without == {"stem", "stages"}


def test_an_image_without_objects_teaches_that_there_is_none() -> None:
    detector = built().train()
    losses, (samples,) = detector.losses(detector.extract(blank()), blank(), [truth()])
    assert losses["cls"] > 0
    assert losses["box"] == 0
    assert losses["distance"] == 0
    assert len(samples.boxes) == 0


def test_the_best_fitting_cell_stands_for_the_object() -> None:
    boxes = torch.tensor([[8.0, 8, 40, 40], [12, 8, 40, 44], [60, 60, 80, 80]])
    owner = assign(boxes_of_cells(boxes), boxes, truth((8, 8, 40, 40, 1)))
    assert owner[0] == 0
    assert owner[2] == -1


def test_a_cell_that_two_objects_want_goes_to_the_one_it_fits() -> None:
    boxes = torch.tensor([[8.0, 8, 40, 40]])
    targets = truth((0, 0, 60, 60, 0), (8, 8, 40, 40, 1))
    assert assign(boxes_of_cells(boxes), boxes, targets).tolist() == [1]


def test_perfect_boxes_have_no_box_loss_and_the_least_distance_loss() -> None:
    boxes = torch.tensor([[8.0, 8, 40, 40]])
    fits = detection_losses(boxes_of_cells(boxes), truth((8, 8, 40, 40, 1)))
    loose = detection_losses(boxes_of_cells(boxes), truth((8, 8, 44, 44, 1)))
    assert fits.weight == 1
    assert float(fits.box) == pytest.approx(0, abs=1e-5)
    assert float(fits.distance) == pytest.approx(0, abs=1e-5)
    assert fits.box < loose.box
    assert fits.distance < loose.distance


def test_the_class_target_is_the_overlap() -> None:
    boxes = torch.tensor([[8.0, 8, 40, 40]])
    target = truth((8, 8, 44, 40, 1))
    overlap = float(box_ops.iou(boxes, target.boxes))
    prediction = boxes_of_cells(boxes)
    right = torch.tensor([[-20.0, math.log(overlap / (1 - overlap))]])
    too_sure = torch.tensor([[-20.0, 8.0]])
    assert detection_losses(prediction._replace(logits=right), target).quality < 1e-6
    assert detection_losses(prediction._replace(logits=too_sure), target).quality > 0.01


def test_cells_on_a_crowd_are_not_called_background() -> None:
    boxes = torch.tensor([[8.0, 8, 40, 40]])
    prediction = boxes_of_cells(boxes)
    assert detection_losses(prediction, truth(crowds=((0, 0, 50, 50),))).quality == 0
    assert detection_losses(prediction, truth(crowds=((60, 60, 90, 90),))).quality > 0


def test_points_on_the_border_are_outside() -> None:
    assert contains(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.0, 4], [4, 4], [8, 4]])).tolist() == [
        [False],
        [True],
        [False],
    ]


@pytest.mark.parametrize("size", [(16, 16), (1080, 1920), (1920, 1080), (64, 512), (8192, 8192), (1, 1)])
def test_the_input_keeps_the_area_and_fits_the_strides(size: tuple[int, int]) -> None:
    height, width = KeepArea().target(*size)
    assert height % 32 == 0
    assert width % 32 == 0
    assert 0.85 < height * width / 416**2 < 1.15
    frames = torch.zeros(1, 3, *size, dtype=torch.uint8)
    assert InputConfig(resize=KeepArea()).prepare([frames]).pixels.shape == (1, 3, height, width)


def test_fixed_shapes_give_the_same_boxes() -> None:
    detector = built(score_threshold=0.0, max_detections=5).eval()
    with torch.no_grad():
        features = detector.extract(blank())
        (free,) = detector.detect(features, blank())
        fixed, exists = detector.detect_fixed(features, blank())
    assert torch.allclose(fixed.boxes[exists], free.boxes, atol=1e-4)
    assert torch.allclose(fixed.scores[exists], free.scores, atol=1e-6)


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the weights of COCO are not at hand")
def test_the_public_weights_fit_and_see_a_grey_frame_as_empty() -> None:
    tensors = {key: tensor.float() for key, tensor in load_file(WEIGHTS).items()}
    detector = NanoDetConfig(frozen=True).build(80).eval()
    own = {key.removeprefix("detector."): tensor for key, tensor in from_nanodet_plus(tensors).items()}
    missing, unexpected = detector.load_state_dict(own, strict=False)
    assert unexpected == []
    assert all(name.startswith("standardise.") for name in missing)
    frames = torch.full((1, 3, 360, 640), 127, dtype=torch.uint8)
    images = detector.config.input.prepare([frames])
    with torch.no_grad():
        (detections,) = detector.detect(detector.extract(images), images)
    assert F.relu(detections.confidence - 0.2).sum() == 0
