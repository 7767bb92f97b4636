"""Regions against torchvision's pooler and against loops; what every detector's answer can do."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align

from tubelet.models.rcnn.detectors.detector import Detections, Detector, Features

STRIDES = [4, 8, 16, 32]
SIZE = (192, 256)


class Regions(Detector):
    """A detector of which only the cutting of regions is asked."""

    extract = detect = losses = None  # type: ignore[assignment]


def detector(strides: list[int], *, aligned: bool = True, channels: int = 3) -> Detector:
    one = Regions()
    one.channels, one.strides, one.aligned = channels, strides, aligned
    return one


def pyramid(strides: list[int], images: int = 3, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(images, channels, SIZE[0] // s, SIZE[1] // s, generator=generator) for s in strides]


def boxes(count: int, seed: int) -> Tensor:
    """Boxes from tiny to as large as the image, some beyond its border."""
    generator = torch.Generator().manual_seed(seed)
    extent = 2 ** (torch.rand(count, 2, generator=generator) * 7 + 1)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([SIZE[1], SIZE[0]])
    return torch.cat([centre - extent / 2, centre + extent / 2], 1)


@pytest.mark.parametrize("resolution", [7, 14])
def test_regions_equal_torchvisions_pooler(resolution: int) -> None:
    maps = pyramid(STRIDES)
    per_image = [boxes(40, 1), boxes(0, 2), boxes(25, 3)]
    pooler = MultiScaleRoIAlign(["0", "1", "2", "3"], resolution, sampling_ratio=2)
    theirs = pooler(OrderedDict((str(i), m) for i, m in enumerate(maps)), per_image, [SIZE] * 3)
    ours = detector(STRIDES, aligned=False).regions(maps, per_image, resolution)
    assert ours.shape == (65, 3, resolution, resolution)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("strides", [STRIDES, [8, 16, 32]])
def test_a_region_is_cut_from_the_level_that_suits_its_size(strides: list[int]) -> None:
    maps = pyramid(strides, images=1)
    some = boxes(60, 4)
    found = detector(strides).regions(maps, [some], 7)
    for box, cells in zip(some, found, strict=True):
        side = math.sqrt((box[2] - box[0]).item() * (box[3] - box[1]).item())
        level = min(max(math.floor(math.log2(side / (14 * strides[0]))), 0), len(strides) - 1)
        alone = roi_align(maps[level], [box[None]], 7, 1 / strides[level], 2, aligned=True)
        torch.testing.assert_close(cells, alone[0])


def test_sides_of_112_224_and_448_pixels_open_the_next_level() -> None:
    maps = [torch.full((1, 1, 1024 // s, 1024 // s), float(level)) for level, s in enumerate(STRIDES)]
    sides = torch.tensor([10.0, 111.0, 112.0, 223.0, 224.0, 447.0, 448.0, 1000.0])
    squares = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], 1)
    cells = detector(STRIDES, channels=1).regions(maps, [squares], 1)
    assert cells.flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_no_boxes_give_no_regions_and_a_gradient_of_nothing() -> None:
    maps = [m.requires_grad_() for m in pyramid(STRIDES)]
    cells = detector(STRIDES).regions(maps, [torch.zeros(0, 4)] * 3, 14)
    assert cells.shape == (0, 3, 14, 14)
    assert cells.sum() == 0


def test_a_box_without_area_gives_finite_cells() -> None:
    flat = torch.tensor([[10.0, 10.0, 10.0, 40.0], [5.0, 5.0, 5.0, 5.0]])
    assert detector(STRIDES).regions(pyramid(STRIDES, images=1), [flat], 7).isfinite().all()


def test_a_coarser_level_without_strides_of_its_own_is_left_alone() -> None:
    maps = pyramid(STRIDES, images=1)
    some = boxes(20, 5)
    extra = [*maps, torch.full((1, 3, 3, 4), math.nan)]
    torch.testing.assert_close(detector(STRIDES).regions(extra, [some], 7), detector(STRIDES).regions(maps, [some], 7))


def test_regions_pass_gradients_to_the_levels_they_were_cut_from() -> None:
    maps = [m.requires_grad_() for m in pyramid(STRIDES, images=1)]
    detector(STRIDES).regions(maps, [torch.tensor([[20.0, 20.0, 60.0, 60.0]])], 7).sum().backward()
    touched = [m.grad is not None and bool(m.grad.any()) for m in maps]
    assert touched == [True, False, False, False]


def test_features_of_one_image_are_a_batch_of_one() -> None:
    features = Features(maps=pyramid(STRIDES), taps=pyramid([16]))
    one = features.at(1)
    assert [len(m) for m in (*one.maps, *one.taps)] == [1] * 5
    assert torch.equal(one.maps[2][0], features.maps[2][1])


def test_detections_name_their_best_class_and_can_be_chosen() -> None:
    found = Detections(boxes=boxes(3, 6), scores=torch.tensor([[0.1, 0.8], [0.6, 0.3], [0.0, 0.2]]))
    assert (len(found), found.labels.tolist()) == (3, [1, 0, 1])
    torch.testing.assert_close(found.confidence, torch.tensor([0.8, 0.6, 0.2]))
    kept = found[found.confidence > 0.5]
    assert len(kept) == 2
    assert torch.equal(kept.boxes, found.boxes[:2])
