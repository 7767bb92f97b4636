"""Clips made on the spot: each frame shows its own number as eight black or white blocks, so that no mix-up hides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from torch import Tensor

ORANGE = (220, 120, 40)  # the disc's colour
BLACK = 16
WHITE = 235


class Colours(NamedTuple):
    """How RGB becomes YUV, in the numbers of ITU-T H.273, as a file's header states it."""

    primaries: int
    transfer: int
    matrix: int
    range: int  # 1 is limited, 2 is full


def picture(number: int, size: tuple[int, int]) -> np.ndarray:
    """Frame `number`, uint8 [H, W, 3]: bits in the upper half, left to right; a disc that moves below."""
    height, width = size
    image = np.full((height, width, 3), BLACK, np.uint8)
    for bit in range(8):
        image[: height // 2, bit * (width // 8) : (bit + 1) * (width // 8)] = WHITE if number >> bit & 1 else BLACK

    rows, columns = np.ogrid[:height, :width]
    disc = (rows - 0.75 * height) ** 2 + (columns - disc_column(number, width)) ** 2 < (height / 8) ** 2
    image[disc] = ORANGE
    return image


def disc_column(number: int, width: int) -> int:
    """The column of the disc's centre in frame `number`."""
    return (3 * number) % width


def number_of(frame: Tensor) -> int:
    """The number that a decoded frame [3, H, W] shows."""
    _, height, width = frame.shape
    blocks = frame[:, height // 8 : 3 * height // 8].float().mean((0, 1))
    centres = [bit * (width // 8) + width // 16 for bit in range(8)]
    return sum(int(blocks[centre] > 128) << bit for bit, centre in enumerate(centres))


def write_clip(
    path: Path,
    codec: str = "libx264",
    *,
    numbers: Sequence[int] = range(40),
    size: tuple[int, int] = (48, 64),
    pixels: str = "yuv420p",
    times: Sequence[float] | None = None,
    gop: int = 10,
    b_frames: int | None = 2,
    quarters: int = 0,
    mirrored: bool = False,
    aspect: Fraction | None = None,
    colours: Colours | None = None,
    seconds_of_sound: float = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode numbered frames.

    Args:
        path: The file; its suffix chooses the container.
        codec: FFmpeg's encoder; the test is skipped without it.
        numbers: The number that each frame shows.
        size: Height and width as shown.
        pixels: FFmpeg's pixel format.
        times: In seconds; by default 25 frames a second.
        gop: Frames from one keyframe to the next.
        b_frames: Most B-frames in a row; None for codecs without.
        quarters: Quarter turns, clockwise, of what is stored; the header tells players to undo them.
        mirrored: Whether what is stored is also mirrored left to right before it is turned.
        aspect: Width of a pixel over its height.
        colours: The header's word on colour; by default none, and BT.601.
        seconds_of_sound: Length of the sound track; 0 for none.
        options: Of the encoder.
        container_options: Of the container.
    """
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")

    unit = Fraction(1, 25) if times is None else Fraction(1, 1000)
    upright = [picture(number, size) for number in numbers]
    stored = [np.rot90(image[:, ::-1] if mirrored else image, -quarters) for image in upright]
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = stored[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = unit
        stream.codec_context.gop_size = gop
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if colours is not None:
            _set_colours(stream, colours)
        if quarters or mirrored:
            _set_orientation(stream, quarters, mirrored)

        sound = container.add_stream("aac", rate=8000, layout="mono") if seconds_of_sound else None
        for n, image in enumerate(stored):
            frame = _in_yuv(image, pixels, colours)
            frame.pts = n if times is None else round(times[n] * 1000)
            frame.time_base = unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _add_silence(container, sound, seconds_of_sound)
    return path


def _set_colours(stream: av.VideoStream, colours: Colours) -> None:
    context = stream.codec_context
    context.color_primaries = colours.primaries
    context.color_trc = colours.transfer
    context.colorspace = colours.matrix
    context.color_range = colours.range


def _set_orientation(stream: av.VideoStream, quarters: int, mirrored: bool) -> None:
    if not hasattr(stream, "set_display_rotation"):
        pytest.skip("this PyAV cannot note a rotation")
    stream.set_display_rotation(90 * quarters, hflip=mirrored)


def _in_yuv(image: np.ndarray, pixels: str, colours: Colours | None) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    if colours is None:
        return frame.reformat(format=pixels)
    return frame.reformat(format=pixels, dst_colorspace=colours.matrix, dst_color_range=colours.range)


def _add_silence(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for start in range(0, int(seconds * 8000), 1000):
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        silence.pts = start
        container.mux(stream.encode(silence))
    container.mux(stream.encode(None))


@contextmanager
def copying(source: Path, target: Path, options: dict[str, str] | None = None) -> Iterator[Copy]:
    """Open a clip, and a new file that takes its video packets unchanged or changed."""
    with av.open(str(source)) as given, av.open(str(target), "w", options=options or {}) as taken:
        stream = given.streams.video[0]
        packets = [packet for packet in given.demux(stream) if packet.size]
        yield Copy(packets, taken, taken.add_stream_from_template(stream))


class Copy(NamedTuple):
    """Packets of a clip, and where they go."""

    packets: list[av.Packet]
    container: av.container.OutputContainer
    stream: av.VideoStream

    def put(self, packet: av.Packet) -> None:
        packet.stream = self.stream
        self.container.mux(packet)


def changed(source: Path, target: Path, change: Callable[[int, bytes], bytes | None]) -> Path:
    """Copy a clip packet by packet, with each packet's bytes changed, or the packet left out for None."""
    with copying(source, target) as copy:
        for n, packet in enumerate(copy.packets):
            data = change(n, bytes(packet))
            if data is None:
                continue
            new = av.Packet(data)
            new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
            new.is_keyframe = packet.is_keyframe
            copy.put(new)
    return target


def trimmed(source: Path, target: Path, start: float) -> Path:
    """Copy packets from the keyframe before `start` seconds on; `start` becomes the time 0, as `ffmpeg -ss` does."""
    with copying(source, target) as copy:
        first_stamp = min(packet.pts for packet in copy.packets)
        shift = first_stamp + round(start / copy.packets[0].time_base)
        first = max(n for n, packet in enumerate(copy.packets) if packet.is_keyframe and packet.pts <= shift)
        for packet in copy.packets[first:]:
            packet.pts -= shift
            packet.dts -= shift
            copy.put(packet)
    return target
