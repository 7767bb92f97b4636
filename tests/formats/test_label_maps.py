from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.types import Track
from tubelet.formats.label_maps import PALETTE, decode_map, encode_binary, encode_map, merge, separate


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def test_the_palette_is_davis_own():
    assert PALETTE[:8].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128], [128, 128, 128],
    ]  # fmt: skip
    assert PALETTE[8].tolist() == [64, 0, 0]
    assert PALETTE[255].tolist() == [224, 224, 192]


@given(seed=st.integers(0, 2**32 - 1), wide=st.booleans())
@settings(max_examples=30, deadline=None)
def test_maps_read_back_as_written(seed, wide):
    numbers = np.random.default_rng(seed).integers(0, 60000 if wide else 256, (7, 9))
    assert np.array_equal(decode_map(encode_map(numbers, wide=wide), (7, 9), "here"), numbers)


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "RGB", "RGBA"])
def test_every_kind_of_image_gives_the_same_numbers(mode):
    numbers = np.array([[0, 1, 1], [0, 0, 1]])
    if mode == "L":
        image = Image.fromarray(numbers.astype(np.uint8))
    elif mode == "P":
        image = Image.fromarray(numbers.astype(np.uint8), mode="P")
        image.putpalette([0, 0, 0, 10, 200, 30])  # a palette of another tool
    elif mode == "1":
        image = Image.fromarray(numbers.astype(bool))
    elif mode == "I;16":
        image = Image.fromarray(numbers.astype(np.uint16))
    else:
        image = Image.fromarray(PALETTE[numbers]).convert(mode)
    assert np.array_equal(decode_map(png(image), (2, 3), "here"), numbers)


def test_a_foreign_colour_another_size_and_no_image_are_refused():
    colours = png(Image.fromarray(np.full((2, 3, 3), 77, np.uint8)))
    with pytest.raises(FormatError, match=r"here: the colour #4d4d4d is none of DAVIS's palette"):
        decode_map(colours, (2, 3), "here")
    with pytest.raises(FormatError, match="expected a mask of 2x3, got 3x2, width and height are swapped"):
        decode_map(colours, (3, 2), "here")
    with pytest.raises(FormatError, match="here: not an image"):
        decode_map(b"no png", None, "here")


def test_objects_are_separated_and_gaps_in_their_numbers_are_kept():
    maps = [np.array([[0, 3], [7, 7]]), None, np.array([[3, 0], [0, 0]])]
    found = separate(maps)
    assert list(found) == [3, 7]
    assert [None if rle is None else masks.decode([rle])[0].tolist() for rle in found[3]] == [
        [[0, 1], [0, 0]], None, [[1, 0], [0, 0]],
    ]  # fmt: skip
    assert [rle is not None for rle in found[7]] == [True, False, False]


def test_a_disputed_pixel_goes_to_the_earlier_object_and_is_counted():
    shapes = masks.encode(np.array([[[1, 1, 0]], [[0, 1, 1]], [[1, 1, 1]]], bool))
    tracks = [
        Track(id=1, label=0, score=1.0, rles=(shapes[2],), ignore=True),
        Track(id=2, label=0, score=1.0, rles=(shapes[0],)),
        Track(id=3, label=0, score=1.0, rles=(shapes[1],)),
    ]
    merged, disputed = merge(tracks, {1: 255, 2: 5, 3: 6}, (1, 3), 0)
    assert merged.tolist() == [[5, 5, 6]]
    assert disputed == 1 + 3


def test_a_binary_image_is_black_and_white():
    image = np.array(Image.open(io.BytesIO(encode_binary(np.array([[0, 1], [1, 0]])))))
    assert image.tolist() == [[0, 255], [255, 0]]
