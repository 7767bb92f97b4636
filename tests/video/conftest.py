"""Clips made on the spot: each frame shows its own number as eight black or white blocks, so that no mix-up hides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from torch import Tensor

Upright = tuple[int, int]


def _picture(number: int, size: Upright) -> np.ndarray:
    """Frame `number`, uint8 [H, W, 3]: bits in the upper half, left to right; a disc that moves below."""
    height, width = size
    image = np.full((height, width, 3), 16, np.uint8)
    for bit in range(8):
        image[: height // 2, bit * (width // 8) : (bit + 1) * (width // 8)] = 235 if number >> bit & 1 else 16
    rows, columns = np.ogrid[:height, :width]
    disc = (rows - 0.75 * height) ** 2 + (columns - (3 * number) % width) ** 2 < (height / 8) ** 2
    image[disc] = (220, 120, 40)
    return image


@pytest.fixture(scope="session")
def picture() -> Callable[[int, Upright], np.ndarray]:
    """(number, (height, width)) -> the frame that shows this number, uint8 [H, W, 3]."""
    return _picture


@pytest.fixture(scope="session")
def number_of() -> Callable[[Tensor], int]:
    """The number that a decoded frame [3, H, W] shows."""

    def number(frame: Tensor) -> int:
        _, height, width = frame.shape
        blocks = frame[:, height // 8 : 3 * height // 8].float().mean((0, 1))
        centres = [bit * (width // 8) + width // 16 for bit in range(8)]
        return sum(int(blocks[centre] > 128) << bit for bit, centre in enumerate(centres))

    return number


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """Encode numbered frames into a file of the test's own folder."""

    def make(
        name: str,
        codec: str = "libx264",
        *,
        length: int = 40,
        size: Upright = (48, 64),
        pixels: str = "yuv420p",
        times: Sequence[float] | None = None,
        gop: int = 10,
        b_frames: int | None = 2,
        turned: int = 0,
        aspect: Fraction | None = None,
        options: dict[str, str] | None = None,
    ) -> Path:
        """`times` in seconds, else 25 frames a second; `turned` quarters clockwise on disk, with a note to undo it.

        `aspect` is the width of a pixel over its height.
        """
        if codec not in av.codecs_available:
            pytest.skip(f"this FFmpeg has no {codec}")
        path = tmp_path / name
        unit = Fraction(1, 25) if times is None else Fraction(1, 1000)
        pictures = [np.rot90(_picture(n, size), -turned) for n in range(length)]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, options=options or {})
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = pixels
            stream.codec_context.time_base = unit
            stream.codec_context.gop_size = gop
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            if b_frames is not None:
                stream.codec_context.max_b_frames = b_frames
            if turned:
                if not hasattr(stream, "set_display_rotation"):
                    pytest.skip("this PyAV cannot note a rotation")
                stream.set_display_rotation(90 * turned)
            for n, image in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format=pixels)
                frame.pts, frame.time_base = n if times is None else round(times[n] * 1000), unit
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def remux(tmp_path: Path) -> Callable[[Path, str, Callable[[int, bytes], bytes | None]], Path]:
    """Copy a clip packet by packet, with each packet's bytes changed, or the packet left out for None."""

    def copy(source: Path, name: str, change: Callable[[int, bytes], bytes | None]) -> Path:
        target = tmp_path / name
        with av.open(str(source)) as given, av.open(str(target), "w") as taken:
            stream = given.streams.video[0]
            into = taken.add_stream_from_template(stream)
            for n, packet in enumerate(packet for packet in given.demux(stream) if packet.size):
                data = change(n, bytes(packet))
                if data is None:
                    continue
                new = av.Packet(data)
                new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
                new.is_keyframe, new.stream = packet.is_keyframe, into
                taken.mux(new)
        return target

    return copy
