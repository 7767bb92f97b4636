"""What a player shows of a file: FFmpeg's linear decoding, upright, by PyAV alone. The reference of the corpus."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from torch import Tensor


class Shown(NamedTuple):
    """One frame on the screen."""

    time: float | None  # seconds from the first frame
    image: Tensor  # uint8 [3, H, W] RGB
    is_damaged: bool  # FFmpeg filled a part of it in


def play(path: Path) -> list[Shown]:
    """Decode a file from its first packet to its last; packets that do not decode are passed over."""
    with av.open(str(path)) as container:
        frames = list(_frames(container))
    if not frames:
        return []

    size = (frames[0].height, frames[0].width)
    first = frames[0].pts
    return [Shown(_seconds(frame, first), _upright(frame, size), frame.is_corrupt) for frame in frames]


def _frames(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    stream = container.streams.best("video")
    stream.codec_context.thread_count = 1  # what is put in the place of damaged parts depends on the threads
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            break
        yield from _decoded(stream, packet)
    yield from _decoded(stream, None)


def _decoded(stream: av.VideoStream, packet: av.Packet | None) -> list[av.VideoFrame]:
    try:
        return stream.decode(packet)
    except av.FFmpegError:
        return []


def _seconds(frame: av.VideoFrame, first: int | None) -> float | None:
    if frame.pts is None or first is None:
        return None
    return float((frame.pts - first) * frame.time_base)


def _display_matrix(frame: av.VideoFrame) -> bytes | None:
    try:
        side = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know all of FFmpeg's kinds of side data
        return None
    return None if side is None else bytes(side)


def _upright(frame: av.VideoFrame, size: tuple[int, int]) -> Tensor:
    """The frame, scaled to the size of the first and turned or mirrored as its display matrix says."""
    height, width = size
    image = frame.to_ndarray(format="rgb24", height=height, width=width, threads=1)
    matrix = _display_matrix(frame)
    if matrix is not None:
        # a shown point is x' = a x + c y, y' = b x + d y
        a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
        if b:
            image = image.transpose(1, 0, 2)
        flips = [axis for axis, factor in ((0, b or d), (1, c or a)) if factor < 0]
        image = np.flip(image, flips)
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
