"""AVI files, which hold no times: frames are counted, with an index and without one, and told at their true rate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from tubelet.video import decoding
from tubelet.video.reader import SlowAccessWarning, TruncatedVideoWarning, open_video

Make = Callable[..., Path]
Number = Callable[[Tensor], int]
Picture = Callable[..., np.ndarray]

CODECS = {"mjpeg": "yuvj420p", "mpeg4": "yuv420p", "rawvideo": "bgr24", "libx264": "yuv420p", "msmpeg4v2": "yuv420p"}
SIZE = (96, 128)
TICKS = {
    "late": range(1, 101),  # begins with a moment that repeats nothing
    "every_second": range(0, 200, 2),
    "gap": [*range(50), *range(57, 107)],
}


def make_avi(path: Path, codec: str, ticks: Sequence[int], picture: Picture) -> Path:
    """Numbered frames at ticks of 1/25 s, with a sound track between them; no B-frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = CODECS[codec]
        stream.codec_context.time_base = Fraction(1, 25)
        stream.codec_context.gop_size = 30
        stream.codec_context.max_b_frames = 0
        sound = container.add_stream("pcm_s16le", rate=8000)
        sound.layout = "mono"
        for n, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(picture(n, SIZE), format="rgb24").reformat(format=CODECS[codec])
            frame.pts = tick
            frame.time_base = Fraction(1, 25)
            container.mux(stream.encode(frame))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 320), np.int16), format="s16", layout="mono")
            silence.sample_rate = 8000
            silence.pts = 320 * n
            container.mux(sound.encode(silence))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    return path


def without_index(path: Path) -> Path:
    """The same file with its index made unreadable."""
    data = path.read_bytes()
    start = data.rindex(b"idx1")
    target = path.with_name(f"no_index_{path.name}")
    target.write_bytes(data[:start] + b"JUNK" + data[start + 4 :])
    return target


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", TICKS)
def test_an_avi_reads_at_random_with_and_without_its_index(
    codec: str, name: str, tmp_path: Path, picture: Picture, number_of: Number
) -> None:
    path = make_avi(tmp_path / f"{name}.avi", codec, TICKS[name], picture)
    for file in (path, without_index(path)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            video = open_video(file)
            assert [number_of(frame) for frame in video.frames] == list(range(100))
            for t in np.random.default_rng(0).permutation(100)[:60]:
                assert number_of(video.frames[int(t)]) == t
        # a moment that repeats nothing is written after the first frame
        ticks = np.array([0, *TICKS[name][1:]])
        assert video.times == pytest.approx(ticks / 25)


def test_an_avi_that_is_cut_short_reads_at_random_and_says_so(
    tmp_path: Path, picture: Picture, number_of: Number
) -> None:
    path = make_avi(tmp_path / "cut.avi", "rawvideo", TICKS["every_second"], picture)
    data = path.read_bytes()
    path.write_bytes(data[: int(0.7 * len(data))])
    with pytest.warns(TruncatedVideoWarning, match=r"5\.\d of 8\.0 seconds are in the file; \d+ frames are kept"):
        video = open_video(path)
    assert 60 < len(video) < 75
    for t in np.random.default_rng(0).permutation(len(video)):
        assert number_of(video.frames[int(t)]) == t


@pytest.mark.parametrize("indexed", [True, False])
def test_b_frames_in_an_avi_keep_their_rate(indexed: bool, make_clip: Make, tmp_path: Path, number_of: Number) -> None:
    # copying from another container keeps a finer clock: then most ticks show no new frame
    source = make_clip("source.ts", length=60, options={"x264-params": "scenecut=0"})
    path = tmp_path / "copied.avi"
    with av.open(str(source)) as given, av.open(str(path), "w") as taken:
        into = taken.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.stream = into
                taken.mux(packet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        video = open_video(path if indexed else without_index(path))
        frames = list(video.frames)
    assert video.fps == pytest.approx(25)
    assert video.time(59) == pytest.approx(59 / 25)
    assert [number_of(frame) for frame in frames] == list(range(60))
    assert all(torch.equal(video.frames[t], frames[t]) for t in (40, 3, 59, 17))


def test_a_random_read_that_decodes_from_the_start_says_that_it_is_slow(
    make_clip: Make, number_of: Number, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SLOW", 30)
    frames = open_video(make_clip("b.avi", "mpeg4")).frames
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [number_of(frames[t]) for t in (0, 39, 20)] == [0, 39, 20]
        frames[39]
    with pytest.warns(SlowAccessWarning, match=r"b\.avi: frames are read out of order, .* slow"):
        assert number_of(frames[38]) == 38
