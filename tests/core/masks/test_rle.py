"""Run lengths against pycocotools and decoded loops, the forms that files hold, and what hostile ones are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.masks import RLE

sizes = st.tuples(st.integers(1, 14), st.integers(1, 14))
stacks = st.tuples(st.integers(1, 4), st.integers(1, 14), st.integers(1, 14)).flatmap(
    lambda shape: arrays.arrays(np.bool_, shape)
)


def columns_first(mask: np.ndarray) -> list[int]:
    """Runs of a mask, zeros first, counted one pixel after another."""
    lengths, value = [0], False
    for pixel in mask.T.ravel():
        if bool(pixel) != value:
            lengths.append(0)
            value = not value
        lengths[-1] += 1
    return lengths


def blank(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = 1
    return mask


def rle(mask: np.ndarray) -> RLE:
    return masks.encode(mask[None])[0]


def symbols(value: int, groups: int) -> bytes:
    """One number in `groups` symbols, be it that fewer would do."""
    parts = [(value >> (5 * k)) & 31 for k in range(groups)]
    return bytes(48 + part + (32 if k < groups - 1 else 0) for k, part in enumerate(parts))


# there and back


@given(stack=stacks)
def test_decoding_gives_back_what_was_encoded(stack: np.ndarray) -> None:
    codes = masks.encode(stack)
    assert [code.size for code in codes] == [stack.shape[1:]] * len(stack)
    decoded = masks.decode(codes)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, stack)


@given(stack=stacks)
def test_counts_are_those_of_pycocotools(stack: np.ndarray) -> None:
    theirs = [coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] for mask in stack]
    assert [code.counts for code in masks.encode(stack)] == theirs


@given(stack=stacks)
def test_bool_and_bytes_encode_alike_whatever_the_memory_layout(stack: np.ndarray) -> None:
    turned = np.ascontiguousarray(stack.transpose(2, 1, 0)).transpose(2, 1, 0)
    assert masks.encode(stack) == masks.encode(stack.astype(np.uint8)) == masks.encode(turned)


@given(stack=stacks)
def test_areas_and_boxes_equal_counting_pixels(stack: np.ndarray) -> None:
    codes = masks.encode(stack)
    np.testing.assert_array_equal(masks.areas(codes), [mask.sum() for mask in stack])
    for mask, box in zip(stack, masks.boxes(codes), strict=True):
        rows, columns = np.nonzero(mask)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        np.testing.assert_array_equal(box, tight)


def test_no_masks_give_empty_arrays() -> None:
    assert masks.encode(np.zeros((0, 4, 5), bool)) == []
    assert len(masks.decode([])) == 0
    assert masks.areas([]).shape == (0,)
    assert masks.boxes([]).shape == (0, 4)


# run lengths


@given(stack=stacks)
def test_runs_are_the_mask_counted_column_by_column(stack: np.ndarray) -> None:
    for mask, code in zip(stack, masks.encode(stack), strict=True):
        assert masks.runs(code.counts).tolist() == columns_first(mask)


@given(
    first=st.integers(0, 1 << 27),
    others=st.lists(st.integers(1, 1 << 20), max_size=30),
)
def test_runs_of_large_masks_are_read_back(first: int, others: list[int]) -> None:
    lengths = [first, *others]
    counts = coco.frPyObjects({"size": [1, sum(lengths)], "counts": lengths}, 1, max(sum(lengths), 1))["counts"]
    assert masks.runs(counts).tolist() == lengths


@given(groups=st.lists(st.integers(2, 6), min_size=4, max_size=4))
def test_numbers_written_with_more_symbols_than_needed_read_the_same(groups: list[int]) -> None:
    counts = b"".join(symbols(value, n) for value, n in zip([4, 8, 2, -2], groups, strict=True))
    assert masks.runs(counts).tolist() == [4, 8, 2, 6]
    assert masks.areas([RLE((4, 5), counts)]).tolist() == [14]


def test_no_counts_are_no_runs() -> None:
    assert masks.runs(b"").tolist() == []


# hostile counts: a decoder that trusts them writes beyond its memory

hostile = {
    "a run longer than the mask": symbols(21, 2),
    "too few pixels": symbols(19, 1),
    "runs that only sum up": symbols(30, 2) + symbols(-10, 1),
    "a negative difference below nothing": symbols(10, 1) + symbols(5, 1) + symbols(5, 1) + symbols(-6, 1),
    "a run of 2^58": symbols(1 << 58, 12),
    "runs whose sum wraps around to 20": symbols(1 << 58, 12) * 64 + symbols(20, 2),
    "a number that never ends": symbols(20, 2)[:1],
    "a truncated last symbol": masks.encode(np.eye(64, dtype=bool)[None])[0].counts[:-1],
    "more than 64 bits": b"o" * 14 + b"0",
    "symbols below the alphabet": b" !",
    "a NUL byte": b"\x00",
    "symbols above the alphabet": b"\xff\xfe",
    "nothing": b"",
}


@pytest.mark.parametrize("counts", hostile.values(), ids=hostile.keys())
def test_hostile_counts_are_refused_with_one_line_that_says_where(counts: bytes) -> None:
    with pytest.raises(FormatError, match=r"^annotation 7: [^\n]+$"):
        masks.check_counts(counts, (4, 5), "annotation 7")


@given(counts=st.binary(max_size=24), size=sizes)
def test_any_bytes_are_either_refused_or_decode_to_the_size(counts: bytes, size: tuple[int, int]) -> None:
    try:
        masks.check_counts(counts, size)
    except FormatError:
        return
    assert masks.decode([RLE(size, counts)]).shape == (1, *size)


@given(stack=stacks, cut=st.integers(1, 5))
def test_truncated_counts_never_pass(stack: np.ndarray, cut: int) -> None:
    code = masks.encode(stack)[0]
    with pytest.raises(FormatError):
        masks.check_counts(code.counts[:-cut], code.size)


@pytest.mark.parametrize("size", [(0, 4), (-3, 4), (1 << 20, 1 << 20)])
def test_sizes_beyond_reason_are_refused_before_anything_is_allocated(size: tuple[int, int]) -> None:
    with pytest.raises(FormatError, match="not supported"):
        masks.check_counts(b"0", size)
    for value in ({"size": list(size), "counts": [size[0] * size[1]]}, [[0, 0, 2, 0, 2, 2]]):
        with pytest.raises(FormatError):
            masks.from_json(value, size)


# the forms that files hold


@given(mask=sizes.flatmap(lambda size: arrays.arrays(np.bool_, size)))
def test_compressed_and_uncompressed_forms_read_alike(mask: np.ndarray) -> None:
    wanted = rle(mask)
    size = list(mask.shape)
    forms: list[dict[str, Any]] = [
        {"size": size, "counts": wanted.counts},
        {"size": size, "counts": wanted.counts.decode()},
        {"size": size, "counts": columns_first(mask)},
        {"size": tuple(size), "counts": wanted.counts.decode()},
    ]
    assert [masks.from_json(form, mask.shape) for form in forms] == [wanted] * len(forms)


@given(mask=sizes.flatmap(lambda size: arrays.arrays(np.bool_, size)))
def test_what_is_written_reads_back(mask: np.ndarray) -> None:
    assert masks.from_json(masks.to_json(rle(mask)), mask.shape) == rle(mask)


@pytest.mark.parametrize("value", [None, [], {}])
def test_absence_has_three_spellings(value: Any) -> None:
    assert masks.from_json(value, (4, 5)) is None


def test_absence_is_written_as_null() -> None:
    assert masks.to_json(None) is None


def test_a_polygon_fills_its_inside_and_several_are_one_object() -> None:
    left, right = [1, 1, 4, 1, 4, 5, 1, 5], [6, 2, 9, 2, 9, 4, 6, 4]
    read = masks.from_json([left, right], (8, 12))
    assert read is not None
    np.testing.assert_array_equal(masks.decode([read])[0], blank((8, 12), (1, 1, 4, 5), (6, 2, 9, 4)))


def test_a_polygon_that_leaves_the_frame_is_cut_at_its_border() -> None:
    read = masks.from_json([[-3.5, -2, 4, -2, 4, 3, -3.5, 3]], (6, 7))
    assert read is not None
    np.testing.assert_array_equal(masks.decode([read])[0], blank((6, 7), (0, 0, 4, 3)))


broken = {
    "another size": ({"size": [5, 5], "counts": [25]}, r"size \[4, 5\] \(height, width\), got \[5, 5\]"),
    "height and width swapped": ({"size": [5, 4], "counts": [20]}, r"got \[5, 4\]"),
    "a size of one number": ({"size": [20], "counts": [20]}, r"got \[20\]"),
    "no size": ({"counts": [20]}, "size and counts"),
    "no counts": ({"size": [4, 5]}, "size and counts"),
    "a size that is no list": ({"size": 20, "counts": [20]}, "got 20"),
    "counts that are a number": ({"size": [4, 5], "counts": 20}, "type int"),
    "counts that do not fill the frame": ({"size": [4, 5], "counts": [10, 9]}, "20 pixels, got 19"),
    "a negative run": ({"size": [4, 5], "counts": [25, -5]}, "non-negative"),
    "a run that is true": ({"size": [4, 5], "counts": [True, 19]}, "integers"),
    "a run of half a pixel": ({"size": [4, 5], "counts": [10.5, 10.5]}, "integers"),
    "runs that are strings": ({"size": [4, 5], "counts": ["10", "10"]}, "integers"),
    "runs in runs": ({"size": [4, 5], "counts": [[10], [10]]}, "integers"),
    "runs of uneven depth": ({"size": [4, 5], "counts": [[10], 10]}, "integers"),
    "a run beyond 64 bits": ({"size": [4, 5], "counts": [10**30]}, "too large"),
    "a run that is no number": ({"size": [4, 5], "counts": [float("nan")]}, "integers"),
    "a run that is null": ({"size": [4, 5], "counts": [None, 20]}, "integers"),
    "letters outside ASCII": ({"size": [3, 5], "counts": "\u00e9"}, "counts"),
    "bytes outside ASCII": ({"size": [3, 5], "counts": b"\xc3\xa9"}, "counts"),
    "empty counts": ({"size": [4, 5], "counts": ""}, "20 pixels"),
    "a string": ("abc", "got 'abc'"),
    "a number": (5, "got 5"),
    "a polygon of two points": ([[0, 0, 1, 1]], "three points"),
    "a polygon with an odd coordinate": ([[0, 0, 1, 1, 2, 2, 3]], "three points"),
    "a polygon without its outer list": ([0, 0, 1, 1, 2, 2], "three points"),
    "a polygon with a string": ([[0, 0, 1, 1, 2, "2"]], "must be numbers"),
    "a polygon with NaN": ([[0, 0, 1, 1, 2, float("nan")]], "must be numbers"),
    "a polygon that ends far away": ([[0, 0, 1, 1, 2, 1e5]], "near the frame"),
    "a polygon with infinity": ([[0, 0, 1, 1, 2, float("inf")]], "must be numbers"),
}


@pytest.mark.parametrize(("value", "reason"), broken.values(), ids=broken.keys())
def test_a_broken_segmentation_is_refused_with_one_line_that_says_where(value: Any, reason: str) -> None:
    size = (3, 5) if isinstance(value, dict) and value.get("size") == [3, 5] else (4, 5)
    with pytest.raises(FormatError, match=r"^annotation 7, frame 2: [^\n]+$") as caught:
        masks.from_json(value, size, "annotation 7, frame 2")
    assert caught.match(reason)
    assert len(str(caught.value)) < 200


# overlap of tracks, as YouTube-VIS measures it

HUNDRED = (0, 0, 10, 10)  # 100 pixels


def track(size: tuple[int, int], *boxes: tuple[int, int, int, int] | None) -> list[RLE | None]:
    return [None if box is None else rle(blank(size, box)) for box in boxes]


def overlap_by_pixels(first: Sequence[RLE | None], second: Sequence[RLE | None]) -> float:
    shared = either = 0
    for a, b in zip(first, second, strict=True):
        pixels = [set(np.flatnonzero(masks.decode([code])[0])) if code else set() for code in (a, b)]
        shared += len(pixels[0] & pixels[1])
        either += len(pixels[0] | pixels[1])
    return shared / either if either else 0.0


def test_overlap_of_a_track_that_goes_on_after_its_truth_is_two_thirds() -> None:
    truth = track((12, 12), HUNDRED, None)
    guess = track((12, 12), HUNDRED, (0, 0, 10, 5))
    assert masks.spatio_temporal_iou(truth, guess) == pytest.approx(100 / 150)


def test_overlap_of_a_track_that_misses_one_of_two_frames_is_one_half() -> None:
    assert masks.spatio_temporal_iou(track((12, 12), HUNDRED, HUNDRED), track((12, 12), HUNDRED, None)) == 0.5


def test_overlap_is_no_mean_of_frames() -> None:
    truth = track((12, 12), (0, 0, 10, 10), (0, 0, 1, 1))
    guess = track((12, 12), (0, 0, 10, 10), (5, 5, 6, 6))
    assert masks.spatio_temporal_iou(truth, guess) == pytest.approx(100 / 102)  # a mean would say 0.5


def test_an_empty_mask_counts_as_absent_and_nothing_overlaps_nothing() -> None:
    empty = rle(blank((12, 12)))
    assert masks.spatio_temporal_iou([empty, None], [None, empty]) == 0.0
    assert masks.spatio_temporal_iou([], []) == 0.0
    full = track((12, 12), HUNDRED)
    assert masks.spatio_temporal_iou([*full, empty], [*full, None]) == 1.0


@given(
    pairs=sizes.flatmap(
        lambda size: st.lists(
            st.tuples(*[st.none() | arrays.arrays(np.bool_, size)] * 2),
            min_size=1,
            max_size=4,
        )
    )
)
def test_overlap_equals_counting_pixels_in_either_order(
    pairs: list[tuple[np.ndarray | None, np.ndarray | None]],
) -> None:
    first, second = ([None if mask is None else rle(mask) for mask in side] for side in zip(*pairs, strict=True))
    wanted = overlap_by_pixels(first, second)
    assert masks.spatio_temporal_iou(first, second) == pytest.approx(wanted)
    assert masks.spatio_temporal_iou(second, first) == pytest.approx(wanted)
    assert masks.spatio_temporal_iou(first[::-1], second[::-1]) == pytest.approx(wanted)


def test_tracks_of_other_lengths_or_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1 frames"):
        masks.spatio_temporal_iou(track((12, 12), HUNDRED, None), track((12, 12), HUNDRED))
    with pytest.raises(ValueError, match=r"\(12, 12\) and \(11, 12\)"):
        masks.spatio_temporal_iou(track((12, 12), HUNDRED), track((11, 12), HUNDRED))
