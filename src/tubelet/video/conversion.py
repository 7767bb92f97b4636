"""Convert decoded frames to RGB: upright, of one size, deinterlaced, and with high dynamic range mapped to sRGB.

Each frame is converted from its own pixels only, so random access gives the same result as reading in order.
"""

from __future__ import annotations

import av
import numpy as np
import torch
from av.filter import Graph
from av.video.reformatter import VideoReformatter
from torch import Tensor

from tubelet.video.hdr import TRANSFERS, tone_mapped

BT2020 = 9  # FFmpeg's number of the colour matrix; PyAV 17 has no name for it


def quarter_turns(frame: av.VideoFrame) -> int:
    """Return how many quarter turns, counterclockwise, make a frame upright; cameras store this as metadata.

    Example:
        >>> import av
        >>> from tubelet.video.conversion import quarter_turns
        >>> quarter_turns(av.VideoFrame(6, 4, "rgb24"))
        0
    """
    return round(frame.rotation / 90) % 4


class Converter:
    """Converts decoded frames to uint8 [3, H, W] RGB.

    Args:
        turns: Quarter turns, counterclockwise, to make a frame upright.
        size: Height and width to scale to, before turning; by default each frame's own.

    Example:
        >>> import av
        >>> from tubelet.video.conversion import Converter
        >>> frame = av.VideoFrame.from_ndarray(np.zeros((4, 6, 3), np.uint8), format="rgb24")
        >>> Converter(turns=1)(frame).shape
        torch.Size([3, 6, 4])
    """

    def __init__(self, turns: int, size: tuple[int, int] | None = None) -> None:
        self._turns = turns
        self._size = size
        self._reformatter = VideoReformatter()  # shared by all frames, since it owns buffers
        self._deinterlacer = Deinterlacer()

    def __call__(self, frame: av.VideoFrame) -> Tensor:
        if frame.interlaced_frame:
            frame = self._deinterlacer(frame)

        is_hdr = frame.color_trc in TRANSFERS
        image = self._to_srgb(frame) if is_hdr else self._to_rgb(frame, "rgb24")
        upright = np.ascontiguousarray(np.rot90(image, self._turns))
        return torch.from_numpy(upright).permute(2, 0, 1)

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
