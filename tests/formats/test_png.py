from __future__ import annotations

import io
import zlib

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tubelet.formats import png


def decoded(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return np.array(Image.open(io.BytesIO(data))), by_opencv


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 20), width=st.integers(1, 20), levels=st.integers(1, 256))
@settings(max_examples=60, deadline=None)
def test_pillow_and_opencv_read_back_what_was_written(seed, height, width, levels):
    image = np.random.default_rng(seed).integers(0, levels, (height, width, 3)).astype(np.uint8)
    for read in decoded(png.encode(image)):
        assert np.array_equal(read, image)


def test_counts_that_ask_for_very_long_codes_are_flattened():
    # a Fibonacci-like distribution gives Huffman codes of more than 15 bits
    counts = [1, 1]
    while len(counts) < 24:
        counts.append(counts[-1] + counts[-2])
    lengths = png._code_lengths(np.array(counts))
    assert lengths.max() <= 15
    assert (2.0**-lengths).sum() <= 1


def test_the_stream_is_one_that_zlib_accepts():
    image = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    data = png.encode(image)
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    assert len(zlib.decompress(data[start : start + length])) == 10 * 31


def test_textures_are_packed_about_as_well_as_zlib_does(generated):
    frame = generated.videos[0].frames[0].permute(1, 2, 0).numpy()
    ours, theirs = png.encode(frame), cv2.imencode(".png", frame)[1]
    assert len(ours) < 1.15 * len(theirs)
