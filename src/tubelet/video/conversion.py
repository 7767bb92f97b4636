"""From a decoded frame to RGB: one size, upright, without combs, high dynamic range brought down to a screen's.

Each frame is converted by itself, from nothing but its own pixels. So reading at random gives the same as in order.
"""

from __future__ import annotations

import av
import numpy as np
import torch
from av.filter import Graph
from av.video.reformatter import VideoReformatter
from torch import Tensor

from tubelet.video.hdr import TRANSFERS, tone_mapped

BT2020 = 9  # FFmpeg's number of the colour matrix, which PyAV 17 has no name for


def quarter_turns(frame: av.VideoFrame) -> int:
    """By how many quarters, counterclockwise, a frame must be turned to be upright: cameras only note how they lie."""
    return round(frame.rotation / 90) % 4


class Converter:
    """A decoded frame -> uint8 [3, H, W] RGB, turned by quarters; scaled to `size` (height, width) before, if given."""

    def __init__(self, turns: int, size: tuple[int, int] | None = None) -> None:
        self._turns = turns
        self._size = size
        self._reformatter = VideoReformatter()  # one for all frames: each owns buffers
        self._deinterlacer = Deinterlacer()

    def __call__(self, frame: av.VideoFrame) -> Tensor:
        if frame.interlaced_frame:
            frame = self._deinterlacer(frame)
        image = self._to_srgb(frame) if frame.color_trc in TRANSFERS else self._to_rgb(frame, "rgb24")
        return torch.from_numpy(np.ascontiguousarray(np.rot90(image, self._turns))).permute(2, 0, 1)

    def _to_rgb(self, frame: av.VideoFrame, form: str, colours: int | None = None) -> np.ndarray:
        height, width = self._size or (frame.height, frame.width)
        converted = self._reformatter.reformat(
            frame, width=width, height=height, format=form, src_colorspace=colours, threads=1
        )
        return converted.to_ndarray()

    def _to_srgb(self, frame: av.VideoFrame) -> np.ndarray:
        return tone_mapped(self._to_rgb(frame, "rgb48le", BT2020), frame.color_trc)


class Deinterlacer:
    """Keeps one of the two moments that an interlaced frame holds, and draws the lines of the other anew.

    FFmpeg's "estdif" follows edges within the frame alone. Filters that look at frames before and after keep more of
    what stands still, but what they give depends on where decoding began.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._form: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        form = (frame.width, frame.height, frame.format.name)
        if self._graph is None or form != self._form:
            self._graph = _estdif(frame)
            self._form = form
        # the filter gives a frame only when the next one comes
        self._graph.push(frame)
        self._graph.push(frame)
        return _last_picture(self._graph)


def _estdif(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("estdif", "mode=frame"), graph.add("buffersink")).configure()
    return graph


def _last_picture(graph: Graph) -> av.VideoFrame:
    picture = None
    while True:
        try:
            picture = graph.pull()
        except (BlockingIOError, EOFError):
            assert isinstance(picture, av.VideoFrame), "two frames were pushed"
            return picture
