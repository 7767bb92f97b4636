"""Convert decoded frames to RGB: upright, of one size, deinterlaced, and with high dynamic range mapped to sRGB.

Each frame is converted from its own pixels only, so random access gives the same result as reading in order.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import av
import numpy as np
import torch
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.video.reformatter import VideoReformatter
from torch import Tensor

from tubelet.video.hdr import TRANSFERS, tone_mapped

BT2020 = 9  # FFmpeg's number of the colour matrix; PyAV 17 has no name for it


class Orientation(NamedTuple):
    """How a stored picture becomes upright: it is mirrored first, then turned.

    Example:
        >>> from tubelet.video.conversion import Orientation
        >>> Orientation(turns=1).upright(np.array([[1, 2], [3, 4]])).tolist()
        [[2, 4], [1, 3]]
        >>> Orientation(mirrored=True).upright(np.array([[1, 2], [3, 4]])).tolist()
        [[2, 1], [4, 3]]
    """

    turns: int = 0  # quarter turns, counterclockwise
    mirrored: bool = False  # left to right

    @property
    def is_sideways(self) -> bool:
        """Whether height and width change places."""
        return self.turns % 2 == 1

    def upright(self, image: np.ndarray) -> np.ndarray:
        """Turn an image [H, W, ...]; returns a contiguous array."""
        if self.mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, self.turns))


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return how to make a frame upright; phones store this in the file's header.

    Example:
        >>> import av
        >>> from tubelet.video.conversion import orientation_of
        >>> orientation_of(av.VideoFrame(6, 4, "rgb24"))
        Orientation(turns=0, mirrored=False)
    """
    matrix = _display_matrix(frame)
    if matrix is None:
        return Orientation(turns=round(frame.rotation / 90) % 4)

    # a stored point (x, y) is shown at (a x + c y, b x + d y)
    a, b, _, c, d, *_ = matrix
    mirrored = a * d < b * c
    if mirrored:
        a = -a
        b = -b
    return Orientation(turns=round(math.atan2(-b, a) / (math.pi / 2)) % 4, mirrored=mirrored)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers of FFmpeg's display matrix, row by row; None if the frame has none."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know all of FFmpeg's kinds of side data
        return None
    return struct.unpack("=9i", bytes(data)) if isinstance(data, SideData) else None


class Converter:
    """Converts decoded frames to uint8 [3, H, W] RGB.

    Args:
        orientation: How a frame becomes upright.
        size: Height and width to scale to, before turning; by default each frame's own.

    Example:
        >>> import av
        >>> from tubelet.video.conversion import Converter, Orientation
        >>> frame = av.VideoFrame.from_ndarray(np.zeros((4, 6, 3), np.uint8), format="rgb24")
        >>> Converter(Orientation(turns=1))(frame).shape
        torch.Size([3, 6, 4])
    """

    def __init__(self, orientation: Orientation, size: tuple[int, int] | None = None) -> None:
        self._orientation = orientation
        self._size = size
        self._reformatter = VideoReformatter()  # shared by all frames, since it owns buffers
        self._deinterlacer = Deinterlacer()

    def __call__(self, frame: av.VideoFrame) -> Tensor:
        if frame.interlaced_frame:
            frame = self._deinterlacer(frame)

        is_hdr = frame.color_trc in TRANSFERS
        image = self._to_srgb(frame) if is_hdr else self._to_rgb(frame, "rgb24")
        return torch.from_numpy(self._orientation.upright(image)).permute(2, 0, 1)

    def _to_rgb(self, frame: av.VideoFrame, pixel_format: str, matrix: int | None = None) -> np.ndarray:
        """The frame as [H, W, 3]; `matrix` is the colour matrix, by default the frame's own."""
        height, width = self._size or (frame.height, frame.width)
        converted = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format=pixel_format,
            src_colorspace=matrix,
            threads=1,
        )
        return converted.to_ndarray()

    def _to_srgb(self, frame: av.VideoFrame) -> np.ndarray:
        return tone_mapped(self._to_rgb(frame, "rgb48le", BT2020), frame.color_trc)


class Deinterlacer:
    """Keeps one of the two fields of an interlaced frame and interpolates the lines of the other.

    FFmpeg's "estdif" follows edges within one frame. Filters that use the frames before and after
    are sharper where nothing moves, but their result depends on where decoding began.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._format: tuple[int, int, str] | None = None  # width, height, pixel format of the graph

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        frame_format = (frame.width, frame.height, frame.format.name)
        if self._graph is None or frame_format != self._format:
            self._graph = _estdif(frame)
            self._format = frame_format

        # the filter returns a frame only after it gets the next one
        self._graph.push(frame)
        self._graph.push(frame)
        return _last_frame(self._graph)


def _estdif(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    estdif = graph.add("estdif", "mode=frame")
    sink = graph.add("buffersink")
    graph.link_nodes(source, estdif, sink).configure()
    return graph


def _last_frame(graph: Graph) -> av.VideoFrame:
    frame = None
    while True:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):
            assert isinstance(frame, av.VideoFrame), "two frames were pushed"
            return frame
