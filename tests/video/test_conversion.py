"""What a frame looks like: without combs, and with the light of HDR brought down to a screen's."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np
import pytest
import torch

from tubelet.video import hdr
from tubelet.video.reader import open_video

Make = Callable[..., Path]

NITS = (0.0, 1.0, 36.5, 92.0, 203.0, 1000.0, 10_000.0)
SRGB_GREY = {36.5: 118, 92.0: 179}  # 18 % and 45 % of 203 nits, below the knee


def film(path: Path, codec: str, pictures: list[av.VideoFrame], set_up: Callable[[av.VideoStream], None]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = pictures[0].width, pictures[0].height
        stream.pix_fmt = pictures[0].format.name
        set_up(stream)
        for n, picture in enumerate(pictures):
            picture.pts = n
            picture.time_base = Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def hdr_film(path: Path, transfer: int, codes: np.ndarray) -> Path:
    """Grey columns of 10 bits, limited range, BT.2020."""
    luma = np.repeat(np.round(64 + 876 * codes).astype(np.uint16), 8)
    planes = np.concatenate([np.tile(luma, 16), np.full(16 * len(luma) // 2, 512, np.uint16)])
    picture = av.VideoFrame(len(luma), 16, "yuv420p10le")
    offset = 0
    for plane in picture.planes:
        size = plane.width * plane.height
        rows = planes[offset : offset + size].reshape(plane.height, plane.width)
        offset += size
        padded = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        padded[:, : plane.width] = rows
        plane.update(padded.tobytes())

    def set_up(stream: av.VideoStream) -> None:
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, transfer, 9, 1

    return film(path, "ffv1", [picture], set_up)


@pytest.mark.parametrize("transfer", [hdr.PQ, hdr.HLG])
def test_high_dynamic_range_is_shown_as_light_looks(transfer: int, tmp_path: Path) -> None:
    nits = np.array(NITS)
    if transfer == hdr.PQ:
        codes = hdr.nits_to_pq(nits)
    else:
        table = np.linspace(0, 1, 100_001)
        codes = np.interp(nits, hdr.hlg_to_nits(table), table)
    frame = open_video(hdr_film(tmp_path / "hdr.mkv", transfer, codes)).frames[0]
    shown = frame.float().mean(1)[:, 4::8]  # [3, columns]
    assert (shown.amax(0) - shown.amin(0)).max() <= 1  # grey stays grey
    grey = dict(zip(NITS, shown.mean(0).tolist(), strict=True))
    assert grey[0.0] <= 1
    assert [grey[value] for value in SRGB_GREY] == pytest.approx(list(SRGB_GREY.values()), abs=3)
    assert 215 < grey[203.0] < 240
    assert grey[1000.0] >= 254
    assert grey[10_000.0] >= 254


def test_the_curves_are_those_of_the_standards() -> None:
    # ITU-R BT.2408: reference white is 58 % of PQ and 75 % of HLG
    assert hdr.nits_to_pq(np.array(203.0)) == pytest.approx(0.58, abs=0.005)
    assert hdr.hlg_to_nits(np.array(0.75)) == pytest.approx(203, abs=1)
    assert hdr.pq_to_nits(np.array([0.0, 1.0])) == pytest.approx([0, 10_000])
    assert hdr.hlg_to_nits(np.array([0.0, 1.0])) == pytest.approx([0, 1000], abs=0.1)
    values = np.linspace(0, 1, 50)
    assert hdr.nits_to_pq(hdr.pq_to_nits(values)) == pytest.approx(values, abs=1e-6)
    light = hdr.rolled_off(np.linspace(0, 2000, 500))
    assert (np.diff(light) >= -1e-9).all()
    assert light[-1] == pytest.approx(hdr.WHITE)


def comb(image: torch.Tensor) -> float:
    """How much neighbouring lines differ more than lines of one field do."""
    grey = image.float().mean(0)
    return float((grey[1:-1] - (grey[:-2] + grey[2:]) / 2).abs().mean())


def in_two_fields(picture: av.VideoFrame) -> av.VideoFrame:
    """The same picture, marked as interlaced."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=picture.width, height=picture.height, format="yuv420p", time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("setparams", "field_mode=tff"), graph.add("buffersink")).configure()
    graph.push(picture)
    marked = graph.pull()
    assert isinstance(marked, av.VideoFrame)
    return marked


def interlaced_film(path: Path, codec: str) -> Path:
    """A bar that moves between the two fields of each frame."""

    def moment(time: int) -> np.ndarray:
        image = np.full((64, 96, 3), 40, np.uint8)
        image[:, (4 * time) % 80 : (4 * time) % 80 + 16] = 220
        return image

    pictures = []
    for n in range(20):
        image = moment(2 * n)
        image[1::2] = moment(2 * n + 1)[1::2]
        pictures.append(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p"))

    def set_up(stream: av.VideoStream) -> None:
        stream.codec_context.gop_size = 6
        stream.codec_context.max_b_frames = 0
        stream.codec_context.options = {"tff": "1", "x264-params": "tff=1"} if codec == "libx264" else {}
        stream.codec_context.flags |= (1 << 29) | (1 << 18)  # interlaced motion and transform
        stream.codec_context.bit_rate = 4_000_000

    return film(path, codec, [in_two_fields(picture) for picture in pictures], set_up)


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_an_interlaced_film_is_shown_without_combs_in_any_order(codec: str, tmp_path: Path) -> None:
    path = interlaced_film(tmp_path / "camera.mkv", codec)
    with av.open(str(path)) as container:
        raw = list(container.decode(video=0))
    assert all(frame.interlaced_frame for frame in raw)
    combed = comb(torch.from_numpy(raw[5].to_ndarray(format="rgb24")).permute(2, 0, 1))
    video = open_video(path)
    frames = list(video.frames)
    assert len(frames) == 20
    assert combed > 5
    assert comb(frames[5]) < 0.25 * combed
    for t in np.random.default_rng(0).permutation(20):
        assert torch.equal(video.frames[int(t)], frames[t])
