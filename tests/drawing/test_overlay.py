"""Overlays: tint within the mask, its contour at its rim, its label inside the frame, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.errors import ConfigError
from tubelet.drawing import overlay
from tubelet.drawing.colours import colour
from tubelet.drawing.overlay import Box, draw
from tubelet.drawing.style import OverlayStyle

GREY = 90
TINT = OverlayStyle().opacity


def frame(height: int = 360, width: int = 640) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def masks(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (360, 640)) -> np.ndarray:
    """One mask for each (left, top, right, bottom)."""
    stack = np.zeros((len(boxes), *size), bool)
    for mask, (left, top, right, bottom) in zip(stack, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return stack


def changed(image: np.ndarray) -> np.ndarray:
    return (image != GREY).any(2)


def test_the_inside_is_tinted_the_rim_is_coloured_and_the_rest_stays() -> None:
    out = draw(frame(), masks((200, 150, 400, 300)), [7], ["dog"], [0.9])
    tinted = np.rint(GREY * (1 - TINT) + np.array(colour(7)) * TINT)
    assert np.array_equal(out[225, 300], tinted)
    assert np.array_equal(out[225, 200], colour(7))
    assert np.array_equal(out[150, 390], colour(7))
    outside = changed(out)
    outside[140:310, 190:410] = False
    rows, columns = np.nonzero(outside)
    assert rows.min() >= 130, "only the label, which stands right above"
    assert rows.max() < 150
    assert columns.min() >= 200


def test_the_given_frame_is_not_changed() -> None:
    image = frame()
    draw(image, masks((10, 10, 100, 100)), [1], ["dog"], [0.5])
    assert (image == GREY).all()


def test_frames_that_are_views_of_another_layout_are_drawn_alike() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    view = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)
    given_masks = masks((10, 10, 60, 60), size=(90, 120))
    view_masks = np.ascontiguousarray(given_masks.transpose(2, 1, 0)).transpose(2, 1, 0)
    expected = draw(image, given_masks, [1], ["dog"], [0.5])
    assert np.array_equal(draw(view, view_masks, [1], ["dog"], [0.5]), expected)
    assert np.array_equal(draw(image, given_masks.astype(np.uint8), [1], ["dog"], [0.5]), expected)


def test_a_hole_stays_clear_and_has_a_rim() -> None:
    ring = masks((200, 150, 400, 300))
    ring[0, 200:250, 280:320] = False
    out = draw(frame(), ring, [3], ["ring"], [0.5])
    assert np.array_equal(out[225, 300], [GREY] * 3)
    assert np.array_equal(out[225, 279], colour(3))


def test_an_identity_keeps_its_colour_whatever_its_place() -> None:
    first = draw(frame(), masks((100, 100, 200, 200), (300, 100, 400, 200)), [4, 9], ["a", "b"], [0.5, 0.5])
    second = draw(frame(), masks((300, 100, 400, 200), (100, 100, 200, 200)), [9, 4], ["b", "a"], [0.5, 0.5])
    assert np.array_equal(first, second)


def test_nothing_to_draw_gives_a_copy() -> None:
    image = frame()
    out = draw(image, np.zeros((0, 360, 640), bool), [], [], [])
    assert np.array_equal(out, image)
    assert out is not image
    absent = draw(image, np.zeros((2, 360, 640), bool), [1, 2], ["a", "b"], [0.5, 0.5])
    assert np.array_equal(absent, image)


def test_boxes_are_outlined_only_where_given() -> None:
    nothing = np.zeros((1, 360, 640), bool)
    out = draw(frame(), nothing, [2], ["car"], [0.5], boxes=np.array([[100.2, 99.8, 300, 250]]))
    assert np.array_equal(out[249, 200], colour(2))
    assert np.array_equal(out[175, 200], [GREY] * 3)
    beyond = draw(frame(), nothing, [2], ["car"], [0.5], boxes=np.array([[-50.0, -20.0, 900.0, 500.0]]))
    assert np.array_equal(beyond[359, 320], colour(2))


@given(
    st.tuples(st.integers(8, 200), st.integers(8, 200)),
    st.lists(st.tuples(*[st.integers(0, 199)] * 4), max_size=6),
    st.text(max_size=20),
)
@settings(deadline=None, max_examples=60)
def test_any_masks_and_names_on_any_frame_can_be_drawn(
    size: tuple[int, int], corners: list[tuple[int, ...]], name: str
) -> None:
    given_masks = masks(*((min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners), size=size)
    count = len(corners)
    out = draw(frame(*size), given_masks, list(range(count)), [name] * count, [1.0] * count)
    assert out.shape == (*size, 3)
    assert out.dtype == np.uint8


@pytest.mark.parametrize("size", [(360, 640), (2160, 3840), (640, 360)])
def test_labels_stay_inside_the_frame_and_off_each_other(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[Box] = []
    choose = overlay._label_box
    monkeypatch.setattr(overlay, "_label_box", lambda *given: placed.append(choose(*given)) or placed[-1])
    height, width = size
    corners = [(0.0, 0.0), (0.9, 0.0), (0.0, 0.9), (0.9, 0.9), (0.4, 0.4), (0.42, 0.42), (0.41, 0.45)]
    boxes = [
        (int(x * width), int(y * height), int(x * width) + width // 12, int(y * height) + height // 12)
        for x, y in corners
    ]
    count = len(boxes)
    draw(frame(*size), masks(*boxes, size=size), list(range(count)), ["person"] * count, [0.5] * count)
    assert len(placed) == count
    assert all(0 <= b.left < b.right <= width and 0 <= b.top < b.bottom <= height for b in placed)
    assert not any(a.overlaps(b) for n, a in enumerate(placed) for b in placed[:n])


def test_lines_grow_with_the_frame() -> None:
    def rim_width(height: int, width: int) -> int:
        box = (width // 4, height // 4, width // 2, height // 2)
        out = draw(frame(height, width), masks(box, size=(height, width)), [1], ["a"], [0.5])
        row = out[height * 3 // 8, : width * 3 // 8]
        return int((row == colour(1)).all(1).sum())

    widths = [rim_width(360, 640), rim_width(1080, 1920), rim_width(2160, 3840)]
    assert widths == sorted(widths)
    assert widths[0] >= 2
    assert widths[2] >= 2 * widths[0]


@pytest.mark.parametrize(
    ("image", "given_masks", "ids", "expected"),
    [
        (frame()[..., 0], masks((1, 1, 5, 5)), [1], "expected an image"),
        (frame().astype(float), masks((1, 1, 5, 5)), [1], "expected an image"),
        (frame(), masks((1, 1, 5, 5), size=(90, 160)), [1], r"expected masks of bool \[N, 360, 640\]"),
        (frame(), masks((1, 1, 5, 5)).astype(float), [1], "expected masks of bool"),
        (frame(), masks((1, 1, 5, 5)), [1, 2], "disagree"),
    ],
)
def test_shapes_that_disagree_are_refused(
    image: np.ndarray, given_masks: np.ndarray, ids: list[int], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        draw(image, given_masks, ids, ["dog"], [0.5])


# styles

BOX = (200, 150, 400, 300)


def styled(**fields: object) -> np.ndarray:
    return draw(frame(), masks(BOX), [7], ["dog"], [0.9], style=OverlayStyle.from_tree(dict(fields)))


def test_each_part_of_an_overlay_can_be_left_out() -> None:
    assert styled(masks=False)[225, 300].tolist() == [GREY] * 3
    assert styled(outlines=False)[225, 200].tolist() == styled()[225, 300].tolist()
    assert not changed(styled(labels=False))[:145].any()
    assert changed(styled(scores=False)).sum() < changed(styled()).sum()
    assert not changed(styled(masks=False, outlines=False, labels=False)).any()


def test_opacity_is_that_of_the_tint() -> None:
    assert styled(opacity=1.0)[225, 300].tolist() == list(colour(7))
    assert styled(opacity=0.0)[225, 300].tolist() == [GREY] * 3


def test_a_box_can_be_drawn_around_a_mask() -> None:
    ring = masks((200, 150, 400, 300), (0, 0, 0, 0))
    ring[0, 160:290, 210:390] = False
    out = draw(frame(), ring, [7, 8], ["dog", "cat"], [0.9, 0.9], style=OverlayStyle(outlines=False, boxes=True))
    assert out[150, 390].tolist() == list(colour(7))


def test_in_a_crowd_only_outlines_are_drawn() -> None:
    boxes = [(20 * n, 200, 20 * n + 15, 215) for n in range(3)]
    few = draw(frame(), masks(*boxes), [1, 2, 3], ["a"] * 3, [0.5] * 3, style=OverlayStyle(crowd=3))
    many = draw(frame(), masks(*boxes), [1, 2, 3], ["a"] * 3, [0.5] * 3, style=OverlayStyle(crowd=2))
    assert changed(few)[207, 7]
    assert not changed(many)[207, 7]
    assert many[200, 7].tolist() == list(colour(1))
    assert not changed(many)[:195].any(), "no labels"


def test_a_label_stands_off_small_objects_where_there_is_room() -> None:
    large, small = (200, 150, 400, 300), (205, 135, 220, 148)
    both = masks(large, small)
    out = draw(frame(), both, [1, 2], ["dog", "fly"], [0.9, 0.9], style=OverlayStyle(masks=False, outlines=False))
    assert not changed(out)[both[1]].any()


def test_a_trail_is_a_line_in_the_colour_of_its_object() -> None:
    path = np.array([[10.0, 20.0], [60.0, 20.0]])
    out = draw(frame(), masks((0, 0, 0, 0)), [5], ["a"], [0.5], trails={5: path})
    assert out[20, 35].tolist() == list(colour(5))


def test_a_blurred_class_keeps_no_detail_and_others_keep_all() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (360, 640, 3), dtype=np.uint8)
    both = masks((100, 100, 220, 220), (400, 100, 520, 220))
    style = OverlayStyle(masks=False, outlines=False, labels=False, blur=("person",))
    out = draw(image, both, [1, 2], ["person", "dog"], [0.9, 0.9], style=style)
    assert len(np.unique(out[100:220, 100:220].reshape(-1, 3), axis=0)) <= 100
    assert np.array_equal(out[:, 300:], image[:, 300:])
    edge = out[95:100, 100:220]
    assert not np.array_equal(edge, image[95:100, 100:220]), "a margin, too"


def test_classes_to_blur_are_names_with_commas_on_the_command_line() -> None:
    assert OverlayStyle().override("blur=person, dog").blur == ("person", "dog")
    assert OverlayStyle().override('blur=["person"]').blur == ("person",)


def test_a_style_takes_no_unknown_field() -> None:
    with pytest.raises(ConfigError, match="did you mean 'labels'"):
        OverlayStyle().override("label=false")
