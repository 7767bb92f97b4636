from __future__ import annotations

import hashlib
import io

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


def test_the_bytes_are_these_on_every_machine():
    # a Huffman code of several blocks, runs of one byte, and noise, which zlib may leave as it is
    ramp = np.arange(200 * 300 * 3, dtype=np.int64).reshape(200, 300, 3)
    texture = (ramp * ramp // 977 % 251).astype(np.uint8)
    noise = np.random.PCG64(0).random_raw(200 * 300 * 3).astype(np.uint8).reshape(200, 300, 3)
    digest = hashlib.sha256()
    for image in (texture, np.zeros_like(texture), noise):
        digest.update(png.encode(image))
    assert digest.hexdigest() == "f45e45bc7d48617203bf7d6b0317b01937e3947d3ea14c96f0981d2ecf36129e"


def test_textures_are_packed_about_as_well_as_zlib_does(generated):
    frame = generated.videos[0].frames[0].permute(1, 2, 0).numpy()
    ours, theirs = png.encode(frame), cv2.imencode(".png", frame)[1]
    assert len(ours) < 1.15 * len(theirs)
