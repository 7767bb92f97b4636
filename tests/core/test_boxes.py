"""Boxes against loops over pairs and pixels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou, masks_to_boxes

from tubelet.core import boxes

coordinate = st.integers(-8, 24)
corner = st.tuples(coordinate, coordinate, coordinate, coordinate)


def tensor(rows: list[tuple[int, int, int, int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).view(-1, 4)


def cells(box: list[float]) -> set[tuple[int, int]]:
    """The unit squares that a box with whole coordinates covers."""
    x1, y1, x2, y2 = (int(v) for v in box)
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


@given(rows=st.lists(corner, max_size=5))
def test_area_counts_unit_squares_and_an_inside_out_box_has_none(rows: list[tuple[int, int, int, int]]) -> None:
    assert boxes.area(tensor(rows)).tolist() == [len(cells(list(row))) for row in rows]


@given(first=st.lists(corner, max_size=4), second=st.lists(corner, max_size=4))
def test_overlap_equals_counting_unit_squares(
    first: list[tuple[int, int, int, int]], second: list[tuple[int, int, int, int]]
) -> None:
    found = boxes.iou(tensor(first), tensor(second))
    assert found.shape == (len(first), len(second))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            shared, either = cells(list(a)) & cells(list(b)), cells(list(a)) | cells(list(b))
            assert found[i, j].item() == pytest.approx(len(shared) / len(either) if either else 0.0, abs=1e-6)


@given(first=st.lists(corner, max_size=4), second=st.lists(corner, max_size=4))
def test_coverage_is_the_share_of_the_first_box_that_lies_in_the_second(
    first: list[tuple[int, int, int, int]], second: list[tuple[int, int, int, int]]
) -> None:
    found = boxes.coverage(tensor(first), tensor(second))
    assert found.shape == (len(first), len(second))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            own = cells(list(a))
            wanted = len(own & cells(list(b))) / len(own) if own else 0.0
            assert found[i, j].item() == pytest.approx(wanted, abs=1e-6)


def test_overlap_equals_torchvision_on_boxes_between_pixels() -> None:
    corners = torch.rand(40, 2, 2, generator=torch.Generator().manual_seed(0)) * 50
    some = torch.cat([corners.amin(1), corners.amax(1)], 1)
    torch.testing.assert_close(boxes.iou(some[:15], some[15:]), box_iou(some[:15], some[15:]))


def test_boxes_that_only_touch_do_not_overlap() -> None:
    assert boxes.iou(tensor([(0, 0, 4, 4)]), tensor([(4, 0, 8, 4)])).item() == 0


@given(seed=st.integers(0, 10_000), density=st.floats(0, 0.4))
def test_tight_boxes_equal_a_loop_over_pixels(seed: int, density: float) -> None:
    masks = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(seed)) < density
    found = boxes.from_masks(masks)
    assert found.shape == (2, 3, 4)
    for i in range(2):
        for t in range(3):
            pixels = masks[i, t].nonzero().tolist()
            rows, columns = [y for y, _ in pixels], [x for _, x in pixels]
            wanted = [min(columns), min(rows), max(columns) + 1, max(rows) + 1] if pixels else [0, 0, 0, 0]
            assert found[i, t].tolist() == wanted


def test_tight_boxes_are_those_of_torchvision_with_the_far_edge_outside() -> None:
    masks = torch.rand(5, 12, 10, generator=torch.Generator().manual_seed(1)) < 0.1
    inclusive = masks_to_boxes(masks)
    torch.testing.assert_close(boxes.from_masks(masks), inclusive + torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_a_mask_of_one_pixel_has_a_box_of_area_one() -> None:
    mask = torch.zeros(1, 5, 6, dtype=torch.bool)
    mask[0, 4, 5] = True
    assert boxes.from_masks(mask).tolist() == [[5, 4, 6, 5]]
    assert boxes.area(boxes.from_masks(mask)).tolist() == [1]


def test_grown_boxes_gain_their_share_on_every_side() -> None:
    box = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert boxes.grow(box, 0.25).tolist() == [[5, 10, 35, 70]]
    assert torch.equal(boxes.grow(box, 0.0), box)
